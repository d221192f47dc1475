"""Statistics of a volume's blocks: median and spread of each, in one pass of bounded memory."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voxmill.geometry import Triple, three
from voxmill.volumes.protocols import ReadableVolume

BLOCK_UM = 16.0
"""Edge of a block: one to two cell diameters. In voxels where the size of a voxel is unknown."""
LEAST_EDGE_VOX = 4
MOST_BLOCKS = 2**25
"""Blocks at most; in a larger volume all edges grow alike."""
SAMPLES = 64
"""About so many voxels of each block are looked at."""
LEVELS = (5.0, 50.0, 95.0)
"""Percentiles of the grey values of a block that are kept."""


@dataclass(frozen=True)
class GreyBlocks:
    """Percentiles of the blocks of a volume.

    Parameters
    ----------
    shape : (3,) int
        The volume, voxels.
    edge_vox : (3,) int
        A block; those at the end may be cut.
    edge_um : (3,) float
        The same in micrometres, or in voxels where the size of a voxel is unknown.
    levels : (3, Z, Y, X) float32 array
        The percentiles `LEVELS` of each block.
    """

    shape: Triple
    edge_vox: Triple
    edge_um: tuple[float, float, float]
    levels: np.ndarray

    def level(self, percentile: float) -> np.ndarray:
        """One of the percentiles `LEVELS`: (Z, Y, X) float32."""
        found: np.ndarray = self.levels[LEVELS.index(percentile)]
        return found


def block_edges(shape: Sequence[int], voxel_size_um: Sequence[float] | None) -> Triple:
    """Edges of a block in voxels: about `BLOCK_UM`, at least 4, and no more than 2**25 blocks.

    >>> block_edges((200, 200, 200), (6.0, 1.6, 1.6)), block_edges((200, 200, 200), None)
    ((4, 10, 10), (16, 16, 16))
    """
    size = voxel_size_um or (1.0, 1.0, 1.0)
    edges = [max(LEAST_EDGE_VOX, round(BLOCK_UM / s)) for s in size]
    needed = math.prod(n / e for n, e in zip(shape, edges, strict=True)) / MOST_BLOCKS
    if needed > 1:
        edges = [math.ceil(e * needed ** (1 / 3)) for e in edges]
    return three(min(e, n) for e, n in zip(edges, shape, strict=True))


class BlockPass:
    """Takes planes in their order and gives the percentiles of all blocks at the end.

    Only every second or third plane, row and column of a block is looked at, so that `SAMPLES`
    voxels or more remain; the rest of the volume costs nothing.

    Parameters
    ----------
    shape : (3,) int
    edge_vox : (3,) int
    """

    def __init__(self, shape: Triple, edge_vox: Triple):
        self.shape, self.edge_vox = shape, edge_vox
        # The longest edge is thinned first.
        self.steps = [1, 1, 1]
        while True:
            counts = [-(-e // s) for e, s in zip(edge_vox, self.steps, strict=True)]
            axis = int(np.argmax(counts))
            counts[axis] = -(-edge_vox[axis] // (self.steps[axis] + 1))
            if np.prod(counts) < SAMPLES:
                break
            self.steps[axis] += 1
        self._grid = [-(-n // e) for n, e in zip(shape, edge_vox, strict=True)]
        self._layers: list[np.ndarray] = []
        self._planes: list[np.ndarray] = []

    @property
    def samples(self) -> int:
        """Voxels that are looked at in all blocks together."""
        each = math.prod(-(-e // s) for e, s in zip(self.edge_vox, self.steps, strict=True))
        return each * math.prod(self._grid)

    def wants(self, z: int) -> bool:
        """Whether plane `z` is looked at."""
        return z % self.edge_vox[0] % self.steps[0] == 0

    def add(self, z: int, plane: np.ndarray) -> np.ndarray | None:
        """Take a plane (y, x); planes come in ascending order, those not wanted may be left out.

        Returns
        -------
        samples : (Y, X, n) array or None
            After the last wanted plane of a layer of blocks, the voxels looked at in each of its
            blocks.
        """
        if not self.wants(z):
            return None
        self._planes.append(self._thinned(plane))
        following = z + self.steps[0]
        if following // self.edge_vox[0] == z // self.edge_vox[0] and following < self.shape[0]:
            return None
        return self._close()

    def _thinned(self, plane: np.ndarray) -> np.ndarray:
        """Samples of a plane: (Y, X, rows, columns); those beyond the volume are repeated."""
        rows, columns = (self._positions(axis) for axis in (1, 2))
        kept = np.take(np.take(plane, rows, axis=0), columns, axis=1)
        kept = kept.reshape(self._grid[1], -1, self._grid[2], len(columns) // self._grid[2])
        return kept.transpose(0, 2, 1, 3)

    def _positions(self, axis: int) -> np.ndarray:
        """Voxels that are looked at along an axis, as many for each block."""
        edge, n = self.edge_vox[axis], self.shape[axis]
        inner = np.arange(0, edge, self.steps[axis])
        # The last block may be cut: its samples are spread over what there is.
        starts = np.arange(self._grid[axis]) * edge
        lengths = np.minimum(edge, n - starts)
        return (starts[:, None] + inner[None] % lengths[:, None]).ravel()

    def _close(self) -> np.ndarray:
        samples = np.stack(self._planes, axis=2)
        flat = samples.reshape(*samples.shape[:2], -1)
        self._planes = []
        last = flat.shape[-1] - 1
        order = np.sort(flat, axis=-1)
        ranks = [p / 100 * last for p in LEVELS]
        lower = np.stack([order[..., int(r)] for r in ranks]).astype(np.float32)
        upper = np.stack([order[..., min(int(r) + 1, last)] for r in ranks]).astype(np.float32)
        shares = np.array([r % 1 for r in ranks], np.float32)[:, None, None]
        self._layers.append(lower + (upper - lower) * shares)
        return flat

    def result(self, voxel_size_um: Sequence[float] | None) -> GreyBlocks:
        """Percentiles of all blocks, after the last plane."""
        size = voxel_size_um or (1.0, 1.0, 1.0)
        z, y, x = (float(e * s) for e, s in zip(self.edge_vox, size, strict=True))
        levels = np.stack(self._layers, axis=1)
        return GreyBlocks(self.shape, self.edge_vox, (z, y, x), levels)


def measure_blocks(
    volume: ReadableVolume, voxel_size_um: Sequence[float] | None = None
) -> GreyBlocks:
    """Percentiles of the blocks of a volume, read plane by plane.

    Parameters
    ----------
    volume : ReadableVolume
    voxel_size_um : (3,) float, optional
        None: unknown; lengths are then in voxels.
    """
    z, y, x = (int(n) for n in volume.shape)
    blocks = BlockPass((z, y, x), block_edges((z, y, x), voxel_size_um))
    for plane in filter(blocks.wants, range(z)):
        blocks.add(plane, volume.read_window((plane, 0, 0), (plane + 1, y, x))[0])
    return blocks.result(voxel_size_um)
