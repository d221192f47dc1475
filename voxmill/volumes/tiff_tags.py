"""The few tags of TIFF pages that tell whether they are alike: a hundredth of a full parse."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_TYPES = {1: ("B", 1), 3: ("H", 2), 4: ("I", 4), 16: ("Q", 8)}
"""TIFF field types of whole numbers: struct letter and bytes."""

_LAYOUT_TAGS = {
    256: "width",
    257: "height",
    258: "bits a sample",
    277: "samples a pixel",
    339: "sample format",
}
_DEFAULTS = {258: 1, 277: 1, 339: 1}
_OFFSETS, _COUNTS = (273, 324), (279, 325)


@dataclass(frozen=True)
class PageTags:
    """A page's layout and where its tags say that its strips or tiles lie.

    Parameters
    ----------
    layout : tuple of int
        Values of `_LAYOUT_TAGS`; of the bits and formats of several samples the first.
    offsets, counts : tuple
        Field type, number of values and raw entry of the strips' or tiles' places and sizes.
    order : str
        Byte order, as struct names it.
    """

    layout: tuple[int, ...]
    offsets: tuple | None
    counts: tuple | None
    order: str

    def end(self, file: BinaryIO) -> int:
        """Byte after the last strip or tile."""
        if self.offsets is None or self.counts is None:
            raise ValueError("a page without voxels")
        starts = _values(file, self.order, *self.offsets)
        sizes = _values(file, self.order, *self.counts)
        return max(a + b for a, b in zip(starts, sizes, strict=True))

    def __str__(self):
        return ", ".join(
            f"{n} {v}" for n, v in zip(_LAYOUT_TAGS.values(), self.layout, strict=True)
        )


def read_pages(file: BinaryIO) -> Iterator[PageTags]:
    """Follow the chain of a TIFF's page headers; no voxel is read.

    Raises
    ------
    ValueError
        If the chain leaves the file or runs in a circle, or a header is damaged.
    """
    head = file.read(16)
    if head[:2] not in (b"II", b"MM"):
        raise ValueError("other data than a TIFF")
    order = "<" if head[:2] == b"II" else ">"
    seen: set[int] = set()
    try:
        big = struct.unpack(order + "H", head[2:4])[0] == 43
        number, pointer = struct.Struct(order + "HQ"[big]), struct.Struct(order + "IQ"[big])
        entry = struct.Struct(order + ("HHQ8s" if big else "HHI4s"))
        (offset,) = pointer.unpack_from(head, 8 if big else 4)
        while offset:
            if offset in seen:
                raise ValueError("a page header that points back")
            seen.add(offset)
            (tags,) = number.unpack(_at(file, offset, number.size))
            table = file.read(tags * entry.size + pointer.size)
            yield _page(file, order, entry.iter_unpack(table[: -pointer.size]))
            (offset,) = pointer.unpack(table[-pointer.size :])
    except (struct.error, OSError) as error:
        raise ValueError(f"page header {len(seen)} is incomplete: {error}") from None


def _page(file: BinaryIO, order: str, entries) -> PageTags:
    found, places = dict(_DEFAULTS), {}
    for tag, kind, number, raw in entries:
        if tag in _LAYOUT_TAGS:
            found[tag] = _values(file, order, kind, number, raw)[0]
        elif tag in _OFFSETS or tag in _COUNTS:
            places[tag in _COUNTS] = (kind, number, raw)
    if len(found) < len(_LAYOUT_TAGS):
        raise ValueError("a page without width or height")
    layout = tuple(found[tag] for tag in _LAYOUT_TAGS)
    return PageTags(layout, places.get(False), places.get(True), order)


def _values(file: BinaryIO, order: str, kind: int, number: int, raw: bytes) -> tuple[int, ...]:
    if kind not in _TYPES or not number:
        raise ValueError(f"a tag of type {kind} with {number} values")
    letter, size = _TYPES[kind]
    if number * size > len(raw):
        (position,) = struct.unpack(order + "IQ"[len(raw) == 8], raw)
        here = file.tell()
        raw = _at(file, position, number * size)
        file.seek(here)
    return struct.unpack_from(f"{order}{number}{letter}", raw)


def _at(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)
