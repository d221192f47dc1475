"""Where tissue is: a mask of blocks, from the brightness of the blocks or from a file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from voxmill.geometry import Box, Triple, three
from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.grey_blocks import GreyBlocks
from voxmill.volumes.plausible import check_mask
from voxmill.volumes.protocols import ReadableVolume

LEAST_RATIO = 4.0
"""So many times brighter than the dark blocks, above the darkness, the bright ones must be."""
MOST_BETWEEN = 0.3
"""Most blocks near the threshold, as a share of the dark or of the bright ones, if fewer."""
_NEAR = 1.3
_LEAST_BLOCKS = 64
"""Fewer blocks tell nothing: all is tissue."""


@dataclass(frozen=True)
class Tissue:
    """Blocks of a volume that hold tissue.

    Parameters
    ----------
    shape : (3,) int
        The volume, voxels.
    edge_vox : (3,) int
        A block.
    blocks : (Z, Y, X) bool array
    """

    shape: Triple
    edge_vox: Triple
    blocks: np.ndarray

    def has_tissue(self, box: Box) -> bool:
        """Whether a box of voxels touches a block of tissue.

        >>> mask = np.array([True, False]).reshape(1, 1, 2)
        >>> tissue = Tissue((4, 4, 8), (4, 4, 4), mask)
        >>> [tissue.has_tissue(Box((0, 0, x), (4, 4, 8))) for x in (3, 4)]
        [True, False]
        """
        return bool(self.blocks[self._slices(box)].any())

    def share(self, box: Box | None = None) -> float:
        """Share of the voxels of a box, or of the volume, that lie in blocks of tissue.

        >>> mask = np.array([True, False]).reshape(1, 1, 2)
        >>> Tissue((4, 4, 6), (4, 4, 4), mask).share(Box((0, 0, 3), (4, 4, 6)))
        0.3333333333333333
        """
        box = box or Box.from_shape(self.shape)
        found = self.blocks[self._slices(box)].astype(float)
        for axis, (start, stop, edge) in enumerate(zip(*box, self.edge_vox, strict=True)):
            bounds = np.arange(start // edge, -(-stop // edge) + 1) * edge
            lengths = np.diff(np.clip(bounds, start, stop))
            found = found * lengths.reshape([-1 if a == axis else 1 for a in range(3)])
        return float(found.sum()) / max(box.size, 1)

    def _slices(self, box: Box) -> tuple[slice, slice, slice]:
        return three(
            slice(start // edge, -(-stop // edge))
            for start, stop, edge in zip(*box, self.edge_vox, strict=True)
        )


@dataclass(frozen=True)
class Air:
    """What the rule found: where tissue begins, and how clearly.

    Parameters
    ----------
    threshold : float
        Grey value; blocks whose 95th percentile is below it are dark.
    brightest : float
        Grey value below which 95 % of the voxels of dark blocks lie, in their median block.
    ratio : float
        Brightness of the bright blocks over that of the dark ones.
    between : float
        Blocks near the threshold, as a share of the dark or the bright ones, if fewer.
    """

    threshold: float
    brightest: float
    ratio: float
    between: float

    @property
    def is_clear(self) -> bool:
        """Whether dark blocks are air, and not just dim tissue."""
        return self.ratio >= LEAST_RATIO and self.between <= MOST_BETWEEN


def find_air(blocks: GreyBlocks) -> Air | None:
    """The grey value that parts dark blocks from bright ones; None if all blocks are alike.

    Brightness of a block is its 95th percentile above the darkness of the volume (the 1st
    percentile of the blocks' 5th percentiles), plus the noise of the darkest blocks (the median of
    their 95th less their 5th percentile, over the tenth of blocks of the lowest medians; at least
    a hundredth of the brightest). The logarithms of the blocks' brightness are parted by the
    threshold of Otsu (IEEE Trans. SMC 9(1), 1979).
    """
    low, median, high = (blocks.level(p).ravel().astype(np.float64) for p in (5.0, 50.0, 95.0))
    darkness = np.percentile(low, 1)
    above = np.maximum(high - darkness, 0)
    if not above.max() > 0:
        return None
    darkest = median <= np.percentile(median, 10)
    noise = max(float(np.median((high - low)[darkest])), 0.01 * float(above.max()))
    brightness = np.sort(np.log(above + noise))
    if brightness[0] == brightness[-1]:
        return None
    at = _otsu(brightness)
    split = (brightness[at] + brightness[at + 1]) / 2
    dark, bright = brightness[: at + 1], brightness[at + 1 :]
    near = int((np.abs(brightness - split) < np.log(_NEAR)).sum())
    return Air(
        threshold=float(np.exp(split) - noise + darkness),
        brightest=float(np.median(np.sort(high)[: at + 1])),
        ratio=float(np.exp(np.median(bright) - np.median(dark))),
        between=near / min(len(dark), len(bright)),
    )


def _otsu(values: np.ndarray) -> int:
    """Index of the last of the lower class, in ascending values, by the variance between both."""
    count = len(values)
    below = np.arange(1, count)
    sums = np.cumsum(values)[:-1]
    gap = sums / below - (values.sum() - sums) / (count - below)
    # No split between equal values.
    return int(np.argmax(below * (count - below) * gap**2 * (np.diff(values) > 0)))


def find_tissue(blocks: GreyBlocks) -> tuple[Tissue, np.ndarray, dict[str, Any]]:
    """Blocks of tissue: all but those that are dark and joined to the volume's border by others.

    Dark blocks are air only where they are clearly apart from the bright ones (`Air.is_clear`);
    else all is tissue. The mask is grown by a block on each side, so that no cell at the surface is
    lost.

    Returns
    -------
    tissue : Tissue
    wholly : (Z, Y, X) bool array
        Blocks of tissue alone, for grey-value statistics: their 5th percentile is above the
        brightest of air.
    about : dict
        JSON content: `rule`, and what `Air` holds.
    """
    shape = blocks.levels.shape[1:]
    air = find_air(blocks) if math.prod(shape) >= _LEAST_BLOCKS else None
    about = {"rule": "auto"} | ({} if air is None else {k: float(v) for k, v in vars(air).items()})
    if air is None or not air.is_clear:
        everything = np.ones(shape, bool)
        return Tissue(blocks.shape, blocks.edge_vox, everything), everything, about
    dark = blocks.level(95.0) < air.threshold
    outside = np.zeros(shape, bool)
    for axis in range(3):
        for end in (0, -1):
            place: list[Any] = [slice(None)] * 3
            place[axis] = end
            outside[tuple(place)] = True
    outside = ndimage.binary_propagation(outside & dark, mask=dark)
    inside = ~outside
    wholly = inside & (blocks.level(5.0) > air.brightest)
    grown = ndimage.binary_dilation(inside, np.ones((3, 3, 3), bool))
    return Tissue(blocks.shape, blocks.edge_vox, grown), wholly if wholly.any() else inside, about


def read_tissue(
    mask: ReadableVolume, blocks: GreyBlocks, path: str, own_shape: Sequence[int] | None = None
) -> tuple[Tissue, np.ndarray, dict[str, Any]]:
    """Blocks of tissue from a mask of the volume, which may be coarser than the volume.

    Parameters
    ----------
    mask : ReadableVolume
        Tissue where it is not 0. It spans the whole volume with voxels of its own size.
    blocks : GreyBlocks
    path : str
        For messages.
    own_shape : (3,) int, optional
        Of the volume's file, where the volume is resampled on reading.

    Returns
    -------
    As `find_tissue`; blocks that are wholly tissue are those without a 0.

    Raises
    ------
    VoxmillError
        If the mask is finer than the volume, or empty.
    """
    check_mask(mask.shape, own_shape or blocks.shape, path)
    z, y, x = (
        _bounds(m, n, edge)
        for m, n, edge in zip(mask.shape, blocks.shape, blocks.edge_vox, strict=True)
    )
    some = np.empty(blocks.levels.shape[1:], bool)
    every = np.empty_like(some)
    for layer, (first, last) in enumerate(zip(*z, strict=True)):
        _, rows, columns = mask.shape
        slab = mask.read_window((int(first), 0, 0), (int(last), rows, columns)) != 0
        some[layer] = _over_blocks(slab.any(axis=0), y, x, np.logical_or)
        every[layer] = _over_blocks(slab.all(axis=0), y, x, np.logical_and)
    if not some.any():
        raise VoxmillError(f"{path}: expected a mask of tissue, found only zeros.")
    tissue = Tissue(blocks.shape, blocks.edge_vox, some)
    return tissue, every if every.any() else some, {"rule": "mask", "path": path}


def _bounds(mask: int, volume: int, edge: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last mask voxel (exclusive) that each block touches, along an axis."""
    starts = np.arange(0, volume, edge)
    stops = np.minimum(starts + edge, volume)
    return starts * mask // volume, -(-stops * mask // volume)


def _over_blocks(plane: np.ndarray, y: Any, x: Any, join: Any) -> np.ndarray:
    """Join the voxels of a plane over each block: (Y, X) bool."""
    rows = np.stack([join.reduce(plane[a:b], axis=0) for a, b in zip(*y, strict=True)])
    return np.stack([join.reduce(rows[:, a:b], axis=1) for a, b in zip(*x, strict=True)], axis=1)
