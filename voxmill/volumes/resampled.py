"""An opened volume read at another voxel size.

Each new voxel is the mean over a box of the file's voxels, each counted by the share of it that
lies in the box. The box is the new voxel where that is larger than the file's (the mean over its
footprint, so that nothing is aliased), else as large as one of the file's around the new voxel's
centre, which is linear interpolation. The weights and the order of the sums are those of the whole
volume, so that a voxel has the same value, bit for bit, in whatever window it is read.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np

from voxmill.geometry import Box, Resampling, VoxelSize
from voxmill.volumes.finite import check_finite
from voxmill.volumes.header import VolumeHeader, check_voxel_size
from voxmill.volumes.windows import Windows

_BLOCK_VOXELS = 1 << 23
"""Of the file: the most that are in memory at once beside the window, but for one of its rows."""
_ROUNDING = 1e-6
"""Of a voxel: a share that comes from rounding alone."""


class ResampledWindows(Windows):
    """Windows of a volume in voxels of another size; whole numbers are rounded.

    Parameters
    ----------
    source : Windows
        The opened volume, in its own voxels; closed with this one.
    header : VolumeHeader
        With the shape and voxel size of the new grid.
    """

    def __init__(self, source: Windows, header: VolumeHeader):
        super().__init__(header)
        self._source = source
        self._grid = Resampling(
            source.header.shape,
            VoxelSize.of(source.header.voxel_size_um),
            VoxelSize.of(header.voxel_size_um),
        )

    def close(self) -> None:
        """Release the file."""
        self._source.close()

    def read_window(self, start: Sequence[int], stop: Sequence[int]) -> np.ndarray:
        """Read a box of new voxels; see `Windows.read_window`.

        Raises
        ------
        VoxmillError
            As `Windows.read_window`, or if a voxel of the file that is needed is NaN or infinite.
        """
        first, last = self._check_box(start, stop)
        box = Box((first[0], first[1], first[2]), (last[0], last[1], last[2]))
        window = np.empty(box.shape, self.dtype)
        if window.size:
            for block in box.blocks(self._edges(box)):
                window[block.relative_to(box.start).slices] = self._read(block)
        return window

    def _edges(self, box: Box) -> tuple[int, int, int]:
        """Of blocks that take a bounded number of the file's voxels: whole rows, or planes."""
        depth, height, width = (max(1.0, f) for f in self._grid.factors.tolist())
        row = (width * box.shape[2] + 2) * (depth + 2)
        if row * (height * box.shape[1] + 2) > _BLOCK_VOXELS:
            return 1, max(1, int((_BLOCK_VOXELS / row - 2) / height)), box.shape[2]
        plane = (width * box.shape[2] + 2) * (height * box.shape[1] + 2)
        return max(1, int((_BLOCK_VOXELS / plane - 2) / depth)), box.shape[1], box.shape[2]

    def _read(self, block: Box) -> np.ndarray:
        axes = [
            (places[:, a:b], weights[:, a:b])
            for (places, weights), a, b in zip(self._axes, *block, strict=True)
        ]
        start = tuple(int(places.min()) for places, _ in axes)
        stop = tuple(int(places.max()) + 1 for places, _ in axes)
        values = self._source.read_window(start, stop)
        check_finite(values, self.header.path, start)
        values = values.astype(np.float32, copy=False)
        # Rows first: they are copied as a whole, and fewer voxels are left for the other axes.
        for axis in (1, 0, 2):
            places, weights = axes[axis]
            values = _mean(values, axis, places - start[axis], weights)
        if self.dtype.kind != "f":
            np.rint(values, out=values)
        return values.astype(self.dtype)

    @cached_property
    def _axes(self) -> list[tuple[np.ndarray, np.ndarray]]:
        grid = self._grid
        sizes = zip(grid.own_shape, grid.shape, grid.factors.tolist(), strict=True)
        return [_taps(own, new, factor) for own, new, factor in sizes]


def _taps(own: int, new: int, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Which of the file's voxels a new one is the mean of, along one axis.

    Parameters
    ----------
    own, new : int
        Voxels of the file and of the new grid along the axis.
    factor : float
        Edge of a new voxel in the file's.

    Returns
    -------
    places : (taps, new) int array
        Rising in each column; one that has no share stands at a neighbour.
    weights : (taps, new) float32 array
        Each column adds up to 1.
    """
    width = max(1.0, factor)
    low = (np.arange(new) + 0.5) * factor - width / 2
    places = np.floor(low + _ROUNDING).astype(np.int64) + np.arange(math.ceil(width) + 1)[:, None]
    shares = np.minimum(places + 1, low + width) - np.maximum(places, low)
    held = (shares > _ROUNDING) & (places >= 0) & (places < own)
    shares = np.where(held, shares, 0)
    # What has no share is not read: it may lie outside of the volume, or beside a window.
    least, most = np.where(held, places, own).min(axis=0), np.where(held, places, -1).max(axis=0)
    needed = held.any(axis=1)
    weights = (shares / shares.sum(axis=0)).astype(np.float32)
    return np.clip(places, least, most)[needed], weights[needed]


def _mean(values: np.ndarray, axis: int, places: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted sums along an axis; the taps are added one after another, the same in any window."""
    shape = [1, 1, 1]
    shape[axis] = -1
    total = np.take(values, places[0], axis) * weights[0].reshape(shape)
    for place, weight in zip(places[1:], weights[1:], strict=True):
        total += np.take(values, place, axis) * weight.reshape(shape)
    return total


def at_voxel_size(header: VolumeHeader, voxel_size_um: Iterable[float] | None) -> VolumeHeader:
    """The header of a volume that is read at another voxel size than its file's, if any.

    Parameters
    ----------
    header : VolumeHeader
        In the file's voxels.
    voxel_size_um : (3,) floats, optional
        To be read at, z, y, x, micrometres. Windows are resampled to it.

    Raises
    ------
    VoxmillError
        If a voxel size is not known or no three positive numbers.
    """
    if voxel_size_um is None:
        return header
    size = check_voxel_size(f"{header.path}, resampled_um", voxel_size_um)
    own_um = header.known_voxel_size_um
    grid = Resampling(header.shape, VoxelSize.of(own_um), VoxelSize.of(size))
    return dataclasses.replace(
        header,
        shape=grid.shape,
        voxel_size_um=size,
        voxel_size_source=f"resampled from {header.voxel_size_source}",
        own_shape=header.shape,
        own_voxel_size_um=own_um,
    )
