"""Levels of a pyramid: each is the one below at half the resolution, made row by row of shards."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from voxmill.geometry import Box, Triple
from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.shard_files import StoredShard
from voxmill.volumes.sharded import ShardedArray

COARSEST_VOX = 256
"""Longest edge of the coarsest level, at most."""

_ALIKE = 2**0.5


@dataclass(frozen=True)
class Level:
    """One level of a pyramid.

    Parameters
    ----------
    shape : (3,) int
        Voxels, z, y, x.
    factors : (3,) int
        Voxels of level 0 in one of this level.
    step : (3,) int
        Voxels of the level below in one of this level, 1 or 2.
    """

    shape: Triple
    factors: Triple
    step: Triple

    def rows_below(self, row: int, count: int) -> range:
        """Rows of shards of the level below that one row is made from; `count` are there."""
        first = row * self.step[0]
        return range(first, min(first + self.step[0], count))


def pyramid_levels(
    shape: Sequence[int], voxel_size_um: Sequence[float], most_vox: int = COARSEST_VOX
) -> list[Level]:
    """The levels of a volume's pyramid, level 0 first.

    Each level halves the axes along which its voxels are smallest, within a factor of the square
    root of 2, so that voxels become cubes; axes of one voxel are left. An odd edge is rounded up.

    Parameters
    ----------
    shape : (3,) int
        The volume, voxels, z, y, x.
    voxel_size_um : (3,) float
    most_vox : int
        Levels are added until no edge is longer.

    Examples
    --------
    >>> [level.shape for level in pyramid_levels((100, 600, 601), (4, 1, 1))]
    [(100, 600, 601), (100, 300, 301), (100, 150, 151)]
    >>> pyramid_levels((2000, 100, 100), (2, 2, 2))[-1].factors
    (8, 8, 8)
    """
    z, y, x = shape
    levels = [Level((z, y, x), (1, 1, 1), (1, 1, 1))]
    while max(levels[-1].shape) > most_vox:
        below = levels[-1]
        edges_um = [e * f for e, f in zip(voxel_size_um, below.factors, strict=True)]
        finest = min(e for e, n in zip(edges_um, below.shape, strict=True) if n > 1)
        sz, sy, sx = (
            2 if n > 1 and e < _ALIKE * finest else 1
            for e, n in zip(edges_um, below.shape, strict=True)
        )
        step = (sz, sy, sx)
        z, y, x = (-(-n // s) for n, s in zip(below.shape, step, strict=True))
        fz, fy, fx = (f * s for f, s in zip(below.factors, step, strict=True))
        levels.append(Level((z, y, x), (fz, fy, fx), step))
    return levels


def reduce_mean(voxels: np.ndarray, step: Triple) -> np.ndarray:
    """Mean of the voxels in each cell of `step` voxels, in the same dtype.

    Integers are rounded, halves up. A cell at the far border is the mean of the voxels it has.

    Examples
    --------
    >>> reduce_mean(np.array([[[0, 1, 7]]], np.uint8), (1, 1, 2))
    array([[[1, 7]]], dtype=uint8)
    """
    wide = "float64" if voxels.dtype.kind == "f" else "uint64"
    if voxels.dtype.name in ("uint8", "uint16"):
        wide = "uint32"
    parts = _parts(voxels, step)
    total = next(parts).astype(wide)
    count = 1
    for part in parts:
        total += part
        count += 1
    if voxels.dtype.kind == "f":
        return (total / count).astype(voxels.dtype)
    return ((total + total.dtype.type(count // 2)) // total.dtype.type(count)).astype(voxels.dtype)


def reduce_mode(voxels: np.ndarray, step: Triple) -> np.ndarray:
    """The most frequent value in each cell of `step` voxels; of several, the first in z, y, x.

    For labels, whose mean is another label. A cell at the far border repeats the voxels it has.

    Examples
    --------
    >>> reduce_mode(np.array([[[5, 5, 7, 9], [3, 5, 9, 0]]], np.uint32), (1, 2, 2))
    array([[[5, 9]]], dtype=uint32)
    """
    parts = list(_parts(voxels, step))
    best = parts[0].copy()
    most = np.zeros(best.shape, np.uint8)
    for part in parts:
        count = np.zeros(best.shape, np.uint8)
        for other in parts:
            count += part == other
        better = count > most
        best[better], most[better] = part[better], count[better]
    return best


def _parts(voxels: np.ndarray, step: Triple) -> Iterator[np.ndarray]:
    """The first, second, ... voxels of all cells, cells at the far border completed."""
    missing = [(0, -n % s) for n, s in zip(voxels.shape, step, strict=True)]
    if any(after for _, after in missing):
        voxels = np.pad(voxels, missing, mode="edge")
    for first in product(*(range(s) for s in step)):
        yield voxels[tuple(slice(a, None, s) for a, s in zip(first, step, strict=True))]


Reduce = Callable[[np.ndarray, Triple], np.ndarray]
REDUCE: dict[str, Reduce] = {
    "mean": reduce_mean,
    "mode": reduce_mode,
}


def write_row(
    below: ShardedArray, array: ShardedArray, level: Level, row: int, how: str
) -> list[StoredShard]:
    """Write one row along z of the shards of a level, in the order of `array.indices(row)`.

    Memory is one shard of the level, and the part of the level below that one layer of its chunks
    is made from.

    Parameters
    ----------
    below, array : ShardedArray
        The level below, whose rows `level.rows_below(row)` are written, and this one.
    level : Level
    row : int
    how : str
        "mean" or "mode".

    Raises
    ------
    VoxmillError
        If `how` is another, or the level below is damaged.
    """
    if how not in REDUCE:
        raise VoxmillError(f"pyramid: expected mean or mode, found {how!r}")
    return [
        array.write_shard(index, _reduced(below, array, level, array.box(index), REDUCE[how]))
        for index in array.indices(row)
    ]


def _reduced(
    below: ShardedArray,
    array: ShardedArray,
    level: Level,
    box: Box,
    reduce: Reduce,
) -> np.ndarray:
    shard = np.empty(box.shape, array.dtype)
    whole = Box.from_shape(below.shape)
    for layer in box.blocks((array.chunk_vox[0], *array.shard_vox[1:])):
        z, y, x = (slice(a * s, b * s) for a, b, s in zip(*layer, level.step, strict=True))
        window = Box((z.start, y.start, x.start), (z.stop, y.stop, x.stop)).clip(whole)
        voxels = below.read(window)
        shard[layer.relative_to(box.start).slices] = reduce(voxels, level.step)
    return shard
