"""Windows of an array stored in chunks, with axes in any order (OME-Zarr, HDF5)."""

import itertools
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.header import VolumeHeader, find_axes
from voxmill.volumes.windows import Windows

_SLAB_BYTES = 1 << 28
"""Planes that are read together, so that a chunk is decoded once and not once a plane."""

Index = tuple[slice, ...]


@dataclass(frozen=True)
class Selection:
    """Which axes of the stored array are z, y, x, and the index along each other one.

    Parameters
    ----------
    zyx : tuple of int
        Positions of z, y and x among the array's axes.
    fixed : tuple of int
        An index per axis; that of z, y and x isn't used.
    channel, time : int or None
        The chosen ones; None where the array has just one.
    """

    zyx: tuple[int, int, int]
    fixed: tuple[int, ...]
    channel: int | None
    time: int | None

    def index(self, start: Iterable[int], stop: Iterable[int]) -> Index:
        """A slice per stored axis for the box of voxels (z, y, x)."""
        slices = [slice(at, at + 1) for at in self.fixed]
        for axis, a, b in zip(self.zyx, start, stop, strict=True):
            slices[axis] = slice(a, b)
        return tuple(slices)

    def to_zyx(self, stored: np.ndarray) -> np.ndarray:
        """The three axes z, y, x of what `index` reads."""
        others = [axis for axis in range(stored.ndim) if axis not in self.zyx]
        order = [*others, *self.zyx]
        return stored.transpose(order).reshape([stored.shape[axis] for axis in self.zyx])


def select(
    path: object, shape: tuple[int, ...], axes: str, channel: int | None, time: int | None
) -> Selection:
    """Choose channel and time point, and find z, y, x; see `voxmill.volumes.header.find_axes`.

    Parameters
    ----------
    path : object
        For messages.
    shape : tuple of int
        Lengths of the stored axes.
    axes : str
        A letter per axis: Z, Y, X, C, T and Q (without a name).
    channel, time : int, optional
        Wanted indices.

    Raises
    ------
    VoxmillError
        If the array is no volume, or a channel or time point is missing or out of range.

    Examples
    --------
    >>> select("v.zarr", (2, 1, 30, 40, 50), "TCZYX", None, 1)
    Selection(zyx=(2, 3, 4), fixed=(1, 0, 0, 0, 0), channel=None, time=1)
    """
    kept = list(range(len(shape)))
    fixed = [0] * len(shape)
    chosen = None
    # Planes that are called time points make a volume where there is no z, as in other formats.
    has_z = "Z" in axes and (shape[axes.index("Z")] > 1 or time is not None)
    if "T" in axes and has_z:
        axis = axes.index("T")
        chosen = _check_time(path, shape[axis], time)
        fixed[axis] = chosen or 0
        kept.remove(axis)
    elif time:
        raise VoxmillError(
            f"{path}: time: {time} doesn't exist: expected axes with t and z, found shape {shape} "
            f"with axes {axes}."
        )
    found = find_axes(path, tuple(shape[a] for a in kept), "".join(axes[a] for a in kept), channel)
    if found.channel_axis is not None:
        fixed[kept[found.channel_axis]] = found.channel or 0
    z, y, x = (kept[axis] for axis in found.zyx)
    return Selection((z, y, x), tuple(fixed), found.channel, chosen)


def _check_time(path: object, count: int, time: int | None) -> int | None:
    if time is None and count > 1:
        raise VoxmillError(
            f"{path}: expected one time point, found {count}: choose one with `time: 0` to "
            f"`time: {count - 1}`."
        )
    return check_index(path, "time", count, time) if count > 1 or time else None


def check_index(path: object, key: str, count: int, index: int | None) -> int:
    """Return `index` (0 where None); refuse one that is not below `count`."""
    if index is not None and not 0 <= index < count:
        raise VoxmillError(
            f"{path}: {key}: {index} doesn't exist: expected 0 to {count - 1}, as the file has "
            f"{count}."
        )
    return index or 0


def file_stamp(path: Path) -> tuple[int, int, int] | None:
    """What tells cheaply whether a file was written again; None where it is gone."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


class ArrayWindows(Windows):
    """Windows of one array in chunks; a format supplies `_read`, `_where` and `_check_unchanged`.

    Memory is the window, once more where axes or bytes must be turned, and the chunks in work.

    Parameters
    ----------
    header : VolumeHeader
    chunks : tuple of int
        Shape of what is decoded at a time, in the stored order of axes.
    """

    def __init__(self, header: VolumeHeader, chunks: tuple[int, ...]):
        super().__init__(header)
        several = len(header.file_shape) > 3  # BigDataViewer and Imaris: an array a channel
        self.selection = select(
            header.path, header.file_shape, header.file_axes,
            header.channel if several else None, header.time if several else None,
        )  # fmt: skip
        self.chunks = chunks

    def read_window(self, start: Sequence[int], stop: Sequence[int]) -> np.ndarray:
        """Read a box of voxels in one piece; see `Windows.read_window`."""
        start, stop = self._check_box(start, stop)
        shape = tuple(b - a for a, b in zip(start, stop, strict=True))
        if 0 in shape:
            return np.empty(shape, self.dtype)
        index = self.selection.index(start, stop)
        try:
            stored = self._read(index)
        except MemoryError:
            raise
        except Exception as error:  # decoders raise errors of many kinds
            self._check_unchanged()
            raise self._explained(index, error) from None
        self._check_unchanged()
        window = self.selection.to_zyx(stored)
        return np.require(window, self.dtype, ["C_CONTIGUOUS", "WRITEABLE"])

    def planes(self, step: int = 1) -> Iterator[tuple[int, np.ndarray]]:
        """Yield `(z, plane)` for every `step`-th plane; a few are in memory at once."""
        plane_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        depth = self.chunks[self.selection.zyx[0]]
        depth = max(1, min(depth, _SLAB_BYTES // max(1, plane_bytes)))
        for first in range(0, self.shape[0], depth):
            stop = min(first + depth, self.shape[0])
            wanted = range(-(-first // step) * step, stop, step)
            if not wanted:
                continue
            slab = self.read_window((wanted[0], 0, 0), (wanted[-1] + 1, *self.shape[1:]))
            for z in wanted:
                yield z, slab[z - wanted[0]]

    def _read(self, index: Index) -> np.ndarray:
        """Voxels of a slice per stored axis, all axes kept."""
        raise NotImplementedError

    def _where(self, first: tuple[int, ...]) -> str:
        """Name of the chunk that begins at voxel `first` of the stored array, for messages."""
        raise NotImplementedError

    def _check_unchanged(self) -> None:
        """Refuse a file that was written to since it was opened."""
        raise NotImplementedError

    def _explained(self, index: Index, error: Exception) -> VoxmillError:
        """An error that names the first damaged chunk of a window."""
        starts = [
            range(piece.start // edge * edge, piece.stop, edge)
            for piece, edge in zip(index, self.chunks, strict=True)
        ]
        for first in itertools.product(*starts):
            chunk = [
                slice(max(a, piece.start), min(a + edge, piece.stop))
                for a, edge, piece in zip(first, self.chunks, index, strict=True)
            ]
            try:
                self._read(tuple(chunk))
            except MemoryError:
                raise
            except Exception as found:
                return VoxmillError(
                    f"{self._where(first)} can't be decoded ({shorten(found)}). The chunk is "
                    "damaged or truncated: copy it again, or write the volume again."
                )
        return VoxmillError(
            f"{self.header.path}: a window can't be read ({shorten(error)}), though its chunks can "
            "one by one. Run again."
        )


def shorten(error: Exception) -> str:
    """First line of a library's message, without what follows in brackets; 200 letters at most."""
    text = str(error).split(" [tensorstore_spec", 1)[0].split(" [source locations", 1)[0]
    return (text.splitlines() or [type(error).__name__])[0][:200]
