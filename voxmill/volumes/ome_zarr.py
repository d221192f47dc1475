"""OME-Zarr (0.1 to 0.5) and plain Zarr arrays, versions 2 and 3.

Metadata are read here without a library, so that planning imports none. Windows are read through
`tensorstore`, and through `zarr` where an array has codecs that it lacks; docs/formats-zarr-hdf5.md
says why.
"""

import itertools
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.arrays import ArrayWindows, Index, check_index, file_stamp, select, shorten
from voxmill.volumes.header import VolumeHeader, check_dtype
from voxmill.volumes.ome_metadata import Multiscale, images_below, listed, read_multiscale
from voxmill.volumes.windows import Windows
from voxmill.volumes.zarr_fingerprint import update_fingerprint
from voxmill.volumes.zarr_nodes import Node, read_node
from voxmill.volumes.zarr_store import METADATA_NAMES, FolderStore, Store, join, open_store

__all__ = ["matches", "open_windows", "read_header", "update_fingerprint"]

_LARGEST_CHUNK = 1 << 31

_LOOKED_AT = 100
"""Files of an array whose names are looked at."""

_DEEP = 3
"""Folders that a level's path may have below its image."""


def matches(path: Path, head: bytes) -> bool:
    """Whether the path is a Zarr folder, or a zip file."""
    if not path.is_dir():
        return head[:4] == b"PK\x03\x04"
    return path.suffix == ".zarr" or any((path / name).is_file() for name in METADATA_NAMES)


def read_header(
    path: Path,
    channel: int | None,
    dtypes: tuple[str, ...],
    level: int | None = None,
    time: int | None = None,
    dataset: str | None = None,
) -> VolumeHeader:
    """Header of one level of a Zarr image; see `voxmill.volumes.read_header`."""
    store = open_store(path)
    node, image, level = _find_array(store, dataset or "", level)
    array = node.array
    if image is None:
        axes = _plain_axes(array.names, len(array.shape))
    elif len(image.axes) != len(array.shape):
        raise VoxmillError(
            f"{node.name}: expected {len(image.axes)} axes ({image.axes}) as its multiscales say, "
            f"found shape {array.shape}. Write the store again."
        )
    else:
        axes = image.axes
    dtype = check_dtype(node.name, array.dtype, dtypes)
    _check_chunk(node, dtype)
    _check_names_of_chunks(node)
    selection = select(node.name, array.shape, axes, channel, time)
    z, y, x = (array.shape[axis] for axis in selection.zyx)
    if image is None or level is None:
        size, translation, source = None, None, "a Zarr array without OME metadata: no voxel size"
    else:
        size, translation, source = image.voxel_size_um(level, selection.zyx)
    return VolumeHeader(
        path=str(path),
        format=f"OME-Zarr {image.version}".strip() if image else f"Zarr v{node.version}",
        shape=(z, y, x),
        dtype=dtype,
        voxel_size_um=size,
        voxel_size_source=source,
        channel=selection.channel,
        windows=True,
        file_shape=array.shape,
        file_axes=axes,
        level=level,
        time=selection.time,
        dataset=node.key,
        translation_um=translation,
    )


def _check_chunk(node: Node, dtype: str) -> None:
    """Refuse chunks of which one may not fit the memory: decoders end the process then."""
    nbytes = math.prod(node.array.chunks) * np.dtype(dtype).itemsize
    if nbytes > _LARGEST_CHUNK:
        raise VoxmillError(
            f"{node.metadata_name}: expected chunks of 2 GiB at most, found {node.array.chunks} "
            f"{dtype}, {nbytes} bytes: any window would decode one as a whole. Write the array "
            "with chunks of about 64 to 256 voxels a side."
        )


def _check_names_of_chunks(node: Node) -> None:
    """Refuse an array whose files have other names than its metadata say: all would be missing."""
    if not isinstance(node.store, FolderStore):
        return
    wanted = node.array.key((0,) * len(node.array.shape)).split("/")[0]
    pattern = re.escape(wanted).replace("0", "[0-9]+")
    with os.scandir(node.store.path / node.key) as entries:
        names = itertools.islice((e.name for e in entries if e.name[0] not in ".z"), _LOOKED_AT)
        found = sorted(names)
    if found and not any(re.fullmatch(pattern, name) for name in found):
        raise VoxmillError(
            f"{node.metadata_name}: expected chunks called as {wanted}, as these metadata say, "
            f"found {', '.join(found[:3])}: every voxel would be missing. Correct the "
            "dimension_separator (or chunk_key_encoding), or copy the store again."
        )


def _plain_axes(names: tuple[str | None, ...] | None, count: int) -> str:
    """A letter per axis by its name; Q for all where a name says nothing."""
    letters = [(name or "?").upper() for name in names or ["?"]]
    known = len(set(letters)) == count and all(n in ("Z", "Y", "X", "C", "T") for n in letters)
    return "".join(letters) if known else "Q" * count


def _find_array(
    store: Store, key: str, level: int | None
) -> tuple[Node, Multiscale | None, int | None]:
    """The array to read, the image it is of, and its level there."""
    key = join(key)
    node = read_node(store, key)
    if node is None:
        raise VoxmillError(_no_node(store, key))
    if node.is_array:
        image, found = _image_around(node)
        if level not in (None, found):
            raise VoxmillError(
                f"{node.name}: `level: {level}` is for an image with levels, found one array. Give "
                "the path of the image, or leave the level out."
            )
        return node, image, found
    image = read_multiscale(node)
    if image is None:
        return _find_array(store, _only_image(node), level)
    if level is None and (finer := image.finer_than_first) is not None:
        raise VoxmillError(
            f"{node.name}: expected levels from the finest on, found that level {finer} is finer "
            "than level 0. Choose the one to read with `level`."
        )
    level = check_index(node.name, "level", len(image.levels), level)
    array = read_node(store, join(key, image.levels[level].path))
    if array is None or not array.is_array:
        raise VoxmillError(
            f"{node.name}: level {level} is missing: its multiscales announce the array "
            f"{image.levels[level].path!r}, found "
            f"{', '.join(store.folders(key)) or 'nothing'} there. Copy the store again, or choose "
            "another `level`."
        )
    return array, image, level


def _no_node(store: Store, key: str) -> str:
    names = store.folders(key.rpartition("/")[0] if key else "")
    return (
        f"{store.name(key).rstrip('/')}: expected a Zarr group or array (with zarr.json, .zgroup "
        f"or .zarray), found none; there are {', '.join(names[:10]) or 'no folders'}. Correct the "
        "path or `dataset`, or copy the store again."
    )


def _only_image(node: Node) -> str:
    keys = images_below(node)
    if len(keys) == 1:
        return keys[0]
    if not keys:
        raise VoxmillError(
            f"{node.name}: expected an image (a group with `multiscales`, or an array), found a "
            "group without either. Correct the path, or write the store again."
        )
    raise VoxmillError(
        f"{node.name}: expected one image, found a group without `multiscales` that holds "
        f"{listed(keys)}. Choose one with `dataset: {keys[0]}`."
    )


def _image_around(node: Node) -> tuple[Multiscale | None, int | None]:
    """The image that lists an array as one of its levels; the path may lead straight to it."""
    parts, store = node.key.split("/") if node.key else [], node.store
    if isinstance(store, FolderStore):  # its parents may be part of the same container
        path = store.path.absolute()
        up = min(_DEEP, len(path.parts) - 1)
        parts, store = [*path.parts[-up:], *parts], FolderStore(path.parents[up - 1])
    for depth in range(1, min(_DEEP, len(parts)) + 1):
        above = read_node(store, "/".join(parts[:-depth]))
        image = read_multiscale(above) if above is not None and not above.is_array else None
        for index, level in enumerate(image.levels if image else ()):
            if join(level.path) == "/".join(parts[-depth:]):
                return image, index
    return None, None


def open_windows(header: VolumeHeader) -> Windows:
    """Windows of a Zarr array."""
    return ZarrWindows(header)


class ZarrWindows(ArrayWindows):
    """Windows of a Zarr array; missing chunks are its fill value.

    The metadata file is looked at after each window: an array that is written anew meanwhile is
    refused. A chunk that changes is not noticed while it is read, but by the fingerprint of the
    next run.
    """

    def __init__(self, header: VolumeHeader):
        store = open_store(Path(header.path))
        node = read_node(store, header.dataset or "")
        if node is None or not node.is_array:
            raise VoxmillError(_no_node(store, header.dataset or ""))
        self._node, self._store, self._stamp = node, store, _stamp(store, node)
        array = node.array
        known = array.dtype is not None and array.dtype.newbyteorder("=").name == header.dtype
        if array.shape != header.file_shape or not known:
            raise VoxmillError(
                f"{node.name}: expected an array of shape {header.file_shape} {header.dtype}, "
                f"found {array.shape} {array.dtype}: the store has changed since its header was "
                "read. Run again."
            )
        super().__init__(header, array.chunks)
        try:
            opened = _by_tensorstore(node) if node.by_tensorstore else _by_zarr(node)
        except Exception as error:  # each codec has errors of its own
            raise VoxmillError(
                f"{node.metadata_name}: this array can't be opened ({shorten(error)}). Write it "
                "with blosc, zstd or gzip, or copy it again if it is damaged."
            ) from None
        self._array, self._release = opened

    def close(self) -> None:
        """Release the array."""
        self._release()

    def _read(self, index: Index) -> np.ndarray:
        if self._node.by_tensorstore:
            return self._array[index].read().result()
        return self._array[index]

    def _where(self, first: Any) -> str:
        name = self._store.name(join(self._node.key, self._node.array.key(first)))
        inside = self._node.array.files != self._node.array.chunks
        return f"{name}: the chunk at {first}{' in this shard' if inside else ''}"

    def _check_unchanged(self) -> None:
        if _stamp(self._store, self._node) == self._stamp:
            return
        if self._store.read(self._node.metadata_key) is not None:
            now = read_node(self._store, self._node.key)
            if now is not None and now.metadata == self._node.metadata:
                self._stamp = _stamp(self._store, self._node)
                return
        raise VoxmillError(
            f"{self._node.metadata_name}: the store has changed while it was read. Wait until it "
            "is written, then run again."
        )


def _stamp(store: Store, node: Node) -> tuple[int, int, int] | None:
    """The stamp of the file that holds the metadata."""
    folder = isinstance(store, FolderStore)
    return file_stamp(store.path / node.metadata_key if folder else store.path)


def _by_tensorstore(node: Node) -> tuple[Any, Callable[[], None]]:
    import tensorstore  # slow to import, needed for this format alone

    # As many threads as the job has cores: by itself it takes all of the machine.
    cores = {"limit": len(os.sched_getaffinity(0))}
    spec = {
        "driver": "zarr" if node.version == 2 else "zarr3",
        "kvstore": node.store.kvstore(node.key),
    }
    context = tensorstore.Context({"data_copy_concurrency": cores})
    array = tensorstore.open(spec, open=True, read=True, context=context).result()
    return array, lambda: None


def _by_zarr(node: Node) -> tuple[Any, Callable[[], None]]:
    import zarr

    store, key = node.store.for_zarr(node.key)
    version: Any = node.version
    array = zarr.open_array(store, path=key, mode="r", zarr_format=version)
    return array, lambda: None if isinstance(store, str) else store.close()
