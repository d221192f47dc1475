"""Reading boxes of voxels out of an opened volume, one plane at a time."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol, Self

import numpy as np
from numpy.typing import DTypeLike

from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.header import VolumeHeader


class Windows:
    """An opened volume; a context manager. Memory is the window plus one plane.

    A format derives from this class and supplies `_plane`.
    """

    def __init__(self, header: VolumeHeader):
        self.header = header
        self.shape = header.shape
        self.dtype = np.dtype(header.dtype)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""

    def read_window(self, start: Sequence[int], stop: Sequence[int]) -> np.ndarray:
        """Read the box of voxels from `start` up to, not including, `stop`.

        Parameters
        ----------
        start, stop : (3,) ints
            Corners in voxels, z, y, x, inside the volume.

        Returns
        -------
        window : (z, y, x) array
            A fresh C-contiguous array of the header's dtype in native byte order.

        Raises
        ------
        VoxmillError
            If the box is not inside the volume, or the file is damaged there.
        """
        start, stop = self._check_box(start, stop)
        window = np.empty([b - a for a, b in zip(start, stop, strict=True)], self.dtype)
        if window.size:
            rows, columns = slice(start[1], stop[1]), slice(start[2], stop[2])
            for z in range(start[0], stop[0]):
                plane = self._plane(z, rows, columns)
                if plane.shape != window.shape[1:]:
                    raise VoxmillError(
                        f"{self.header.path}: plane {z} holds {plane.shape} voxels (y, x) where "
                        f"{window.shape[1:]} were expected: the file is damaged, write it again."
                    )
                window[z - start[0]] = plane
        return window

    def _check_box(
        self, start: Sequence[int], stop: Sequence[int]
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Corners as integers; refuse a box that is not inside the volume."""
        start, stop = tuple(map(int, start)), tuple(map(int, stop))
        if not all(0 <= a <= b <= n for a, b, n in zip(start, stop, self.shape, strict=True)):
            raise VoxmillError(
                f"{self.header.path}: expected a window inside the volume of shape {self.shape}, "
                f"found {start} to {stop}."
            )
        return start, stop

    def planes(self, step: int = 1) -> Iterator[tuple[int, np.ndarray]]:
        """Yield `(z, plane)` for every `step`-th plane, one in memory at a time."""
        for z in range(0, self.shape[0], step):
            yield z, self.read_window((z, 0, 0), (z + 1, *self.shape[1:]))[0]

    def _plane(self, z: int, rows: slice, columns: slice) -> np.ndarray:
        """Voxels of plane `z` within `rows` and `columns`, of a type that casts to the dtype."""
        raise NotImplementedError


class RawWindows(Windows):
    """Windows of uncompressed voxels at regular distances in one file.

    Rows are read with `pread` and not memory-mapped: a file that shrinks while it is mapped kills
    the process, and mapping a whole volume counts against a limit on address space.

    Parameters
    ----------
    header : VolumeHeader
    dtype : dtype
        Type and byte order in the file.
    offset : int
        Byte position of voxel (0, 0, 0).
    strides : (3,) ints
        Bytes from a voxel to its next in z, y and x.
    scale : (2,) floats, optional
        Slope and intercept: the value is `stored * slope + intercept`.
    """

    def __init__(
        self,
        header: VolumeHeader,
        dtype: DTypeLike,
        offset: int,
        strides: Sequence[int],
        scale: tuple[float, float] | None = None,
    ):
        super().__init__(header)
        self._dtype, self._offset, self._strides = np.dtype(dtype), int(offset), tuple(strides)
        self._scale = scale
        self._file: IO[bytes] = open(header.path, "rb", buffering=0)  # noqa: SIM115 closed by close()

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def _plane(self, z: int, rows: slice, columns: slice) -> np.ndarray:
        counts = (rows.stop - rows.start, columns.stop - columns.start)
        strides = self._strides[1:]
        first = z * self._strides[0] + rows.start * strides[0] + columns.start * strides[1]
        span = sum((n - 1) * s for n, s in zip(counts, strides, strict=True))
        data = self._read(self._offset + first, span + self._dtype.itemsize, z)
        plane = np.ndarray(counts, self._dtype, data, strides=strides)
        return rescale(plane, self._scale)

    def _read(self, position: int, count: int, z: int) -> bytes:
        return read_exactly(self._file, position, count, self.header.path, f"plane {z}")


class FileWithNumber(Protocol):
    """An open file of the system: a file object, or tifffile's."""

    def fileno(self) -> int:
        """Number of the open file."""


def rescale(stored: np.ndarray, scale: tuple[float, float] | None) -> np.ndarray:
    """`stored * slope + intercept` in double precision, or `stored` itself without a scale."""
    return stored if scale is None else stored.astype(np.float64) * scale[0] + scale[1]


def read_exactly(
    file: FileWithNumber, position: int, count: int, path: str | Path, what: str
) -> bytes:
    """Read `count` bytes at `position`, or raise VoxmillError naming the file and `what`."""
    pieces = []
    missing = count
    while missing:  # one pread returns 2 GiB at most
        piece = os.pread(file.fileno(), min(missing, 1 << 30), position + count - missing)
        if not piece:
            raise VoxmillError(
                f"{path}: truncated in {what}: expected {count} bytes at byte {position}, found "
                f"{count - missing}. Copy or write the file again."
            )
        pieces.append(piece)
        missing -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
