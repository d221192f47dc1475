"""Local normalisation: background and contrast of the place, the same whatever the tile.

The maps are made once for the whole volume, on its blocks. A window interpolates them at the
absolute positions of its voxels, so that a voxel's normalised value depends on the volume and on
the voxel alone: no tile, no halo.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from voxmill.config.normalisation import Normalisation
from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.grey_blocks import GreyBlocks

# What a Gaussian reaches, in standard deviations.
_TRUNCATE = 3.0
# A Gaussian of this full width at half maximum has the standard deviation 1.
_FULL_WIDTH = 2.3548
_LEAST_WEIGHT = 1e-3
REGION_UM = 320.0
"""Edge of a region of `cell_contrast`; in voxels where the size of a voxel is unknown."""
LEAST_TISSUE = 0.3
"""Share of tissue that such a region needs."""


@dataclass(frozen=True)
class GreyMaps:
    """Background and contrast of a volume, on its blocks.

    Parameters
    ----------
    edge_vox : (3,) int
        Edges of a block.
    background : (Z, Y, X) float32 array
        Grey value that becomes 0, at the centres of the blocks.
    contrast : float or (Z, Y, X) float32 array
        Difference of grey values that becomes 1.
    clip : float
        Normalised values are limited to [-clip, clip].
    """

    edge_vox: tuple[int, int, int]
    background: np.ndarray
    contrast: float | np.ndarray
    clip: float

    def normalise(self, window: np.ndarray, start: Sequence[int]) -> np.ndarray:
        """Normalised grey values of a window.

        Parameters
        ----------
        window : (z, y, x) array
            Grey values.
        start : (3,) int
            Absolute voxel of its first voxel.

        Returns
        -------
        (z, y, x) float32 array
            (value - background) / contrast, clipped. Both are interpolated linearly between the
            centres of blocks, and constant beyond the outermost ones.
        """
        result = np.empty(window.shape, np.float32)
        places = [
            _Places(first, count, edge, blocks)
            for first, count, edge, blocks in zip(
                start, window.shape, self.edge_vox, self.background.shape, strict=True
            )
        ]
        constant = not isinstance(self.contrast, np.ndarray)
        # Plane by plane: the interpolated maps stay in the cache.
        for i, plane in enumerate(window):
            np.subtract(plane, _interpolated(self.background, places, i), out=result[i])
            result[i] /= self.contrast if constant else _interpolated(self.contrast, places, i)
        return np.clip(result, -self.clip, self.clip, out=result)


class _Places:
    """Where the voxels of a window lie between the centres of blocks, along one axis.

    Voxel v lies at (v + 0.5) / edge - 0.5 blocks: the centre of the first block is at 0.
    """

    def __init__(self, start: int, count: int, edge: int, blocks: int):
        at = (np.arange(start, start + count) + 0.5) / edge - 0.5
        at = np.clip(at, 0, blocks - 1)
        self.lower = np.minimum(at.astype(np.intp), max(blocks - 2, 0))
        self.upper = np.minimum(self.lower + 1, blocks - 1)
        self.share = (at - self.lower).astype(np.float32)


def _interpolated(field: Any, places: list[_Places], plane: int) -> np.ndarray:
    """A plane of a map, (y, x) float32; the same operations for a voxel in any window."""
    z, y, x = places
    lower, upper = field[z.lower[plane]], field[z.upper[plane]]
    values = lower + (upper - lower) * z.share[plane]
    lower, upper = values[y.lower], values[y.upper]
    values = lower + (upper - lower) * y.share[:, None]
    lower, upper = values[:, x.lower], values[:, x.upper]
    found: np.ndarray = lower + (upper - lower) * x.share
    return found


def make_maps(
    blocks: GreyBlocks, settings: Normalisation, tissue: np.ndarray | None = None
) -> GreyMaps:
    """Maps of a volume from the percentiles of its blocks.

    The background is the mean of the medians of the blocks around, with the weights of a Gaussian;
    blocks outside of the tissue count only where no tissue is near (normalised convolution,
    Knutsson & Westin, CVPR 1993). The contrast of a block is its 95th percentile less its median;
    that of the tissue is the median over its blocks, or follows from `cell_contrast`.

    Parameters
    ----------
    blocks : GreyBlocks
    settings : Normalisation
        Of kind local.
    tissue : (Z, Y, X) bool array, optional
        Blocks of tissue; all by default.

    Raises
    ------
    VoxmillError
        If most of the tissue is constant.
    """
    median = blocks.level(50.0)
    spread = blocks.level(95.0) - median
    inside = np.ones(median.shape, bool) if tissue is None or not tissue.any() else tissue
    if settings.contrast == "cells":
        of_tissue = cell_contrast(spread, inside, blocks.edge_um)
    else:
        of_tissue = float(np.median(spread[inside]))
    if not of_tissue > 0:
        raise VoxmillError(
            "normalisation: expected a volume with contrast, found most blocks of "
            f"{list(blocks.edge_vox)} voxels constant. Choose kind global."
        )
    full: Any = settings
    sigmas = [full.background_um / edge / _FULL_WIDTH for edge in blocks.edge_um]
    weights = np.where(inside, np.float32(1), np.float32(_LEAST_WEIGHT))
    contrast: float | np.ndarray = float(full.scale * of_tissue)
    if full.follow:
        share = np.maximum(_smooth(spread, weights, sigmas) / of_tissue, full.floor)
        contrast = (full.scale * of_tissue * share**full.follow).astype(np.float32)
    return GreyMaps(blocks.edge_vox, _smooth(median, weights, sigmas), contrast, settings.clip)


def cell_contrast(spread: np.ndarray, tissue: np.ndarray, edge_um: Sequence[float]) -> float:
    """How much blocks with and without cells differ: the typical region's standard deviation.

    Texture and noise are in every block, bright cells in some: within a region, the contrasts of
    blocks scatter by what stands out. The median over regions ignores those without cells and those
    with debris.

    Parameters
    ----------
    spread : (Z, Y, X) array
        Contrast of each block, grey values.
    tissue : (Z, Y, X) bool array
    edge_um : (3,) float
        A block.
    """
    cuts = []
    for count, edge in zip(spread.shape, edge_um, strict=True):
        parts = max(1, round(count * edge / REGION_UM))
        cuts.append(np.linspace(0, count, parts + 1).round().astype(int))
    found = []
    for corner in np.ndindex(*(len(cut) - 1 for cut in cuts)):
        place = tuple(slice(cut[i], cut[i + 1]) for cut, i in zip(cuts, corner, strict=True))
        inside = tissue[place]
        if inside.mean() >= LEAST_TISSUE:
            found.append(float(np.std(spread[place][inside])))
    return float(np.median(found)) if found else float(np.std(spread[tissue]))


def _smooth(values: np.ndarray, weights: np.ndarray, sigmas: list[float]) -> np.ndarray:
    """The weighted mean of the blocks around each block, float32."""

    def gaussian(field: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(field, sigmas, mode="nearest", truncate=_TRUNCATE)

    result: np.ndarray = gaussian(values * weights) / gaussian(weights)
    return result.astype(np.float32)
