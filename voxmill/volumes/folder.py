"""A folder of 2D TIFF planes, as light-sheet microscopes write them."""

import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from voxmill.errors import VoxmillError
from voxmill.volumes import tiff
from voxmill.volumes.header import VolumeHeader
from voxmill.volumes.windows import Windows

_TYPES = {1: ("B", 1), 3: ("H", 2), 4: ("I", 4), 16: ("Q", 8)}
"""TIFF field types of whole numbers: struct letter and bytes."""

_LAYOUT_TAGS = {
    256: "width",
    257: "height",
    258: "bits a sample",
    262: "photometric",
    277: "samples a pixel",
    339: "sample format",
}
_DEFAULTS = {258: (1,), 277: (1,), 339: (1,)}
_OFFSETS, _COUNTS = (273, 324), (279, 325)


def matches(path: Path, head: bytes) -> bool:
    """Whether the path is a folder."""
    return path.is_dir()


def read_header(path: Path, channel: int | None, dtypes: tuple[str, ...]) -> VolumeHeader:
    """Header of a folder of planes; see `voxmill.volumes.read_header`.

    The first plane is read by tifffile; of the others only the few tags that must agree.
    """
    names = plane_names(path)
    first = path / names[0]
    with tiff.reading(first), tifffile.TiffFile(first) as tif:
        page = tif.pages.first
        if page.samplesperpixel > 1:
            raise VoxmillError(
                f"{first}: expected grey planes, found {page.samplesperpixel} samples a pixel "
                f"({page.photometric.name}). Save the channel that shows the cells as grey planes."
            )
        dtype = tiff.check_dtype(first, page.dtype, dtypes)
        shape = (len(names), page.imagelength, page.imagewidth)
        (_, source) = tiff.voxel_size(tif)
    if len(names) == 1:
        raise VoxmillError(
            f"{path}: expected the planes of a 3D volume, found a 2D image: {names[0]} alone."
        )
    if channel:
        raise VoxmillError(f"{path}: channel {channel} doesn't exist: the planes have one, 0.")
    _check_planes(path, names)
    return VolumeHeader(
        path=str(path),
        format="folder of TIFF planes",
        shape=shape,
        dtype=dtype,
        voxel_size_um=None,
        voxel_size_source=f"folder of TIFF planes: no distance between planes ({source})",
        channel=None,
        windows=True,
        file_shape=shape,
        file_axes="ZYX",
    )


def open_windows(header: VolumeHeader) -> Windows:
    """Windows of a folder of planes."""
    return FolderWindows(header)


class FolderWindows(Windows):
    """Windows of a folder of planes: a plane's file is opened while it is read."""

    def __init__(self, header: VolumeHeader):
        super().__init__(header)
        self._names = plane_names(Path(header.path))
        if len(self._names) != header.shape[0]:
            raise VoxmillError(
                f"{header.path}: expected {header.shape[0]} planes, found {len(self._names)}: the "
                "folder has changed since its header was read. Run again."
            )

    def _plane(self, z, rows, columns):
        path = Path(self.header.path) / self._names[z]
        with tiff.reading(path), tifffile.TiffFile(path) as tif:
            page = tif.pages.first
            if (page.imagelength, page.imagewidth) != self.shape[1:] or page.dtype != self.dtype:
                raise VoxmillError(
                    f"{path}: expected a plane of {self.shape[1:]} (y, x) {self.dtype}, found "
                    f"{(page.imagelength, page.imagewidth)} {page.dtype}."
                )
            return tiff.read_page(page, rows, columns, 0, path, z)


def plane_names(path: Path) -> list[str]:
    """Names of the folder's TIFF files in natural order (plane 10 after plane 9).

    Hidden files and other types of files are left out.

    Raises
    ------
    VoxmillError
        If there is no TIFF file, or the numbers in the names leave a gap.
    """
    files = sorted(name for name in os.listdir(path) if not name.startswith("."))
    names = [name for name in files if name.lower().endswith((".tif", ".tiff"))]
    if not names:
        raise VoxmillError(
            f"{path}: expected a folder of TIFF planes (*.tif, *.tiff), found "
            f"{', '.join(files[:3]) or 'an empty folder'}."
        )
    names.sort(key=_natural)
    _check_gaps(path, names)
    return names


def _natural(name: str) -> tuple:
    pieces = re.split(r"(\d+)", name)
    return [int(p) if i % 2 else p for i, p in enumerate(pieces)], name


def _check_gaps(path: Path, names: list[str]) -> None:
    """Refuse a numbering with a hole: a lost plane would shift all that follow."""
    numbers = [[int(n) for n in re.findall(r"\d+", name)] for name in names]
    if len({len(n) for n in numbers}) != 1 or len({re.sub(r"\d+", "", n) for n in names}) != 1:
        return
    columns = np.array(numbers, dtype=object).T
    varying = [column for column in columns if len(set(column)) > 1]
    if len(varying) != 1:
        return
    steps = np.diff(varying[0].astype(float))
    usual = np.median(steps)
    gap = int(np.argmax(steps))
    if steps[gap] >= 2 * usual > 0:
        raise VoxmillError(
            f"{path}: planes seem to be missing between {names[gap]} and {names[gap + 1]} (names "
            f"step by {usual:g} elsewhere). Add them, or number the files evenly."
        )


@dataclass(frozen=True)
class _Plane:
    layout: tuple
    end: int


def _check_planes(path: Path, names: list[str]) -> None:
    first = None
    for name in names:
        file = path / name
        try:
            plane = _read_plane_tags(file)
        except (struct.error, KeyError, ValueError) as error:
            raise VoxmillError(
                f"{file}: expected a TIFF plane, found a damaged or truncated file ({error}). "
                "Copy or write it again."
            ) from None
        first = first or plane
        if plane.layout != first.layout:
            found, expected = (
                ", ".join(f"{n} {v[0]}" for n, v in zip(_LAYOUT_TAGS.values(), p, strict=True))
                for p in (plane.layout, first.layout)
            )
            raise VoxmillError(
                f"{file}: expected a plane as {names[0]} ({expected}), found {found}. All planes "
                "of a folder need one shape and type."
            )
        tiff.check_end(file, file.stat().st_size, plane.end)


def _read_plane_tags(path: Path) -> _Plane:
    """Read the tags of a file's only page: a few small reads, a hundredth of tifffile's time."""
    with open(path, "rb", buffering=4096) as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}[head[:2]]
        big = struct.unpack(order + "H", head[2:4])[0] == 43
        (offset,) = struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)
        file.seek(offset)
        (count,) = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))
        entry = struct.Struct(order + ("HHQ8s" if big else "HHI4s"))
        table = file.read(count * entry.size)
        tags = {}
        for tag, kind, number, raw in entry.iter_unpack(table):
            if tag in _LAYOUT_TAGS or tag in _OFFSETS or tag in _COUNTS:
                tags[tag] = _values(file, order, kind, number, raw)
        (further,) = struct.unpack(
            order + ("Q" if big else "I"),
            _at(file, offset + (8 if big else 2) + len(table), 8 if big else 4),
        )
        if further:
            raise ValueError("several pages where one plane was expected")
    layout = tuple(tags.get(tag, _DEFAULTS.get(tag)) for tag in _LAYOUT_TAGS)
    if None in layout:
        raise ValueError("a page without width or height")
    starts = next(tags[tag] for tag in _OFFSETS if tag in tags)
    sizes = next(tags[tag] for tag in _COUNTS if tag in tags)
    return _Plane(layout, max(a + b for a, b in zip(starts, sizes, strict=True)))


def _values(file, order: str, kind: int, number: int, raw: bytes) -> tuple[int, ...]:
    letter, size = _TYPES[kind]
    if number * size > len(raw):
        (position,) = struct.unpack(order + ("Q" if len(raw) == 8 else "I"), raw)
        raw = _at(file, position, number * size)
    return struct.unpack_from(f"{order}{number}{letter}", raw)


def _at(file, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)
