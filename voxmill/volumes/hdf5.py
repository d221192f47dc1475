"""HDF5: plain data sets, BigDataViewer and Imaris, through h5py."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.arrays import ArrayWindows, Index, file_stamp, select, shorten
from voxmill.volumes.hdf5_layouts import Wanted, find
from voxmill.volumes.header import VolumeHeader, check_dtype
from voxmill.volumes.windows import Windows

_MAGIC = b"\x89HDF\r\n\x1a\n"

_PIECE = 32
"""Voxels a side that are read at a time to find a damaged place in an array without chunks."""


def matches(path: Path, head: bytes) -> bool:
    """Whether the file begins as HDF5 does."""
    return head[:8] == _MAGIC


def read_header(
    path: Path,
    channel: int | None,
    dtypes: tuple[str, ...],
    level: int | None = None,
    time: int | None = None,
    dataset: str | None = None,
) -> VolumeHeader:
    """Header of one array of an HDF5 file; see `voxmill.volumes.read_header`."""
    with _opened(path) as file:
        found = find(file, path, Wanted(channel, level, time, dataset))
        where = f"{path}: {found.dataset}"
        dtype = check_dtype(where, found.dtype if found.dtype.kind in "buifc" else None, dtypes)
        _check_readable(path, file[found.dataset])
    channel, time = (channel, time) if found.format == "HDF5" else (None, None)
    selection = select(where, found.shape, found.axes, channel, time)
    z, y, x = (found.shape[axis] for axis in selection.zyx)
    return VolumeHeader(
        path=str(path),
        format=found.format,
        shape=(z, y, x),
        dtype=dtype,
        voxel_size_um=found.size,
        voxel_size_source=found.source,
        channel=_first(found.channel, selection.channel),
        windows=True,
        file_shape=tuple(found.shape),
        file_axes=found.axes,
        level=found.level,
        time=_first(found.time, selection.time),
        dataset=found.dataset,
        translation_um=found.translation,
    )


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def open_windows(header: VolumeHeader) -> Windows:
    """Windows of an HDF5 data set."""
    return Hdf5Windows(header)


class Hdf5Windows(ArrayWindows):
    """Windows of an HDF5 data set; a file that is written to meanwhile is refused."""

    def __init__(self, header: VolumeHeader):
        path = Path(header.path)
        with contextlib.ExitStack() as cleanup:
            file = cleanup.enter_context(_opened(path))
            self._stamp = file_stamp(path)
            data = file.get(header.dataset)
            inside = data is not None and len(getattr(data, "shape", ())) == len(header.file_shape)
            if not inside or any(a < b for a, b in zip(data.shape, header.file_shape, strict=True)):
                raise VoxmillError(
                    f"{path}: expected a data set {header.dataset} of shape {header.file_shape}, "
                    f"found {getattr(data, 'shape', 'none')}: the file has changed since its "
                    "header was read. Run again."
                )
            self._data = data
            super().__init__(header, data.chunks or (_PIECE,) * len(data.shape))
            self._cleanup = cleanup.pop_all()

    def close(self) -> None:
        """Close the file."""
        self._cleanup.close()

    def _read(self, index: Index) -> np.ndarray:
        stored = self._data[index]
        if stored.dtype.kind == "i" and self.dtype.kind == "u":  # BigDataViewer's uint16
            return stored.astype(stored.dtype.newbyteorder("=")).view(self.dtype)
        return stored

    def _where(self, first: Any) -> str:
        return f"{self.header.path}: /{self.header.dataset}: the chunk at {first}"

    def _check_unchanged(self) -> None:
        if file_stamp(Path(self.header.path)) != self._stamp:
            raise VoxmillError(
                f"{self.header.path}: the file has changed while it was read. Wait until it is "
                "written, then run again."
            )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator:
    """Open a file; errors say whether it is locked, being written, or damaged."""
    import h5py  # slow to import, needed for this format alone

    try:
        file = h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        raise VoxmillError(f"{path}: {_reason(path, error)}") from None
    with file:
        try:
            yield file
        except (OSError, RuntimeError, KeyError, TypeError, AttributeError) as error:
            raise VoxmillError(
                f"{path}: expected a whole HDF5 file, found damaged metadata ({shorten(error)}). "
                "Copy or write the file again."
            ) from None


def _reason(path: Path, error: OSError) -> str:
    message = str(error)
    if "unable to lock" in message:
        return (
            "another program has this file open for writing (it is locked). Close it there, or "
            "wait until it is written, then run again."
        )
    if "already open" in message:
        return (
            "this file is open for writing (SWMR), or its writer crashed. Close it there; after a "
            f"crash, clear the mark with `h5clear -s {path}`."
        )
    return (
        f"expected a whole HDF5 file, found a damaged or truncated one ({shorten(error)}). Copy "
        "or write the file again."
    )


def _check_readable(path: Path, data: Any) -> None:
    """Refuse filters that h5py can't undo, and virtual data sets with files missing."""
    import h5py

    properties = data.id.get_create_plist()
    for index in range(properties.get_nfilters()):
        code, _, _, name = properties.get_filter(index)
        if not h5py.h5z.filter_avail(code):
            with contextlib.suppress(ImportError):
                import hdf5plugin  # noqa: F401 registers filters; not one of voxmill's packages
        if not h5py.h5z.filter_avail(code):
            name = name.decode("ascii", "replace") if name else "without a name"
            raise VoxmillError(
                f"{path}: {data.name} is compressed with filter {code} ({name}), which is not "
                "there. Write it anew with `h5repack -f GZIP=1 IN OUT`, or install its filter: "
                "`pip install hdf5plugin`."
            )
    for source in data.virtual_sources() if data.is_virtual else ():
        file = path if source.file_name == "." else path.parent / source.file_name
        if not file.exists():
            raise VoxmillError(
                f"{path}: {data.name} is virtual, and its file {source.file_name} is missing. Put "
                "it beside this one."
            )
