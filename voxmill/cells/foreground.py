"""What labels grow over: the probability or, for models that mark centroids alone, the image.

A model that learned centroids gives a high probability near the middle of a cell and none at its
edge, however large the cell is. The image then says where the edge is: a smoothed voxel belongs to
a cell as far as it lies above the middle between the darkest and the brightest voxel around it
(Bernsen, Proc. 8th Int. Conf. Pattern Recognition, 1986), which follows background and brightness
from place to place. The outlines then use levels of each cell's own (`voxmill.cells.contrast`).
All of it is local: a voxel depends on what lies within `foreground_margin`.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from voxmill.cells.seeds import LEVELS, quantised
from voxmill.config.objects import ObjectSettings
from voxmill.geometry import Box, Triple, VoxelSize
from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.protocols import ReadableVolume

# In largest radii (about a cell's diameter), by `python benchmarks/outlines.py foreground`.
SMOOTHING, AROUND = 1 / 16, 1 / 2
_TRUNCATE = 3.0


class Foreground(NamedTuple):
    """What says which voxels belong to a cell.

    Parameters
    ----------
    levels : (z, y, x) uint8 array
        In steps of 1/255.
    grey : (z, y, x) float32 array, optional
        Smoothed grey values, where the foreground is that of the image.
    """

    levels: np.ndarray
    grey: np.ndarray | None = None


def _sigma(settings: ObjectSettings, size: VoxelSize) -> np.ndarray:
    return SMOOTHING * settings.largest_radius_um / size.array


def _reaches(settings: ObjectSettings, size: VoxelSize) -> tuple[Triple, Triple]:
    """Voxels that the smoothing, and the search for the darkest and brightest, reach to."""
    smooth = [math.ceil(_TRUNCATE * sigma) for sigma in _sigma(settings, size)]
    around = [max(1, int(AROUND * settings.largest_radius_um / edge)) for edge in size]
    return (smooth[0], smooth[1], smooth[2]), (around[0], around[1], around[2])


def foreground_margin(settings: ObjectSettings, size: VoxelSize) -> Triple:
    """Voxels around a box that its foreground depends on, z, y, x."""
    if settings.foreground == "probability":
        return 0, 0, 0
    z, y, x = (a + b for a, b in zip(*_reaches(settings, size), strict=True))
    return z, y, x


def read_foreground(
    volume: ReadableVolume, box: Box, size: VoxelSize, settings: ObjectSettings
) -> Foreground:
    """Foreground of a box.

    Parameters
    ----------
    volume : ReadableVolume
        The probability or the image, as `settings.foreground` says.
    box : Box
        Absolute voxels.
    size : VoxelSize
    settings : ObjectSettings

    Raises
    ------
    VoxmillError
        If a value is no probability, or a grey value is not finite.
    """
    if settings.foreground == "probability":
        return Foreground(quantised(volume.read_window(*box)))
    whole = Box.from_shape(volume.shape)
    outer = box.grow(foreground_margin(settings, size), within=whole)
    inner = box.relative_to(outer.start).slices
    levels, grey = of_image(volume.read_window(*outer), size, settings)
    return Foreground(levels[inner], grey[inner])


def of_image(
    image: np.ndarray, size: VoxelSize, settings: ObjectSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Where each voxel lies between the darkest and the brightest around it, 0 to 255.

    Parameters
    ----------
    image : (z, y, x) array
        Grey values; a voxel that is `foreground_margin` away from the array's faces has the value
        that it has in the whole volume.

    Returns
    -------
    levels : (z, y, x) uint8 array
    grey : (z, y, x) float32 array
        The smoothed grey values.
    """
    values = image.astype(np.float32)
    if not np.isfinite(values).all():
        raise VoxmillError("image: expected finite grey values, found one that is not finite.")
    smooth, around = _reaches(settings, size)
    values = ndimage.gaussian_filter(values, _sigma(settings, size), mode="nearest", radius=smooth)
    edges = [2 * reach + 1 for reach in around]
    darkest = ndimage.minimum_filter(values, edges, mode="nearest")
    brightest = ndimage.maximum_filter(values, edges, mode="nearest")
    flat = brightest <= darkest
    share = (values - darkest) / np.where(flat, 1, brightest - darkest)
    levels: np.ndarray = np.rint(np.where(flat, 0, share) * LEVELS).astype(np.uint8)
    return levels, values
