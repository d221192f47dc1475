"""Levels of each cell's own: grey values against the cell's plateau and its surroundings.

The darkest and brightest around a voxel (`voxmill.cells.foreground`) are single voxels, which noise
and neighbours decide. Here a cell's core, the voxels of its territory that lie above the middle by
that measure, gives its plateau, and the median of the voxels around the core that belong to no
territory gives its background. Both are of hundreds of voxels. A cell depends on nothing beyond its
territory and `ring_vox`.
"""

import numpy as np
from scipy import ndimage

from voxmill.cells.seeds import LEVELS
from voxmill.config.objects import ObjectSettings
from voxmill.geometry import Triple, VoxelSize

# By `python benchmarks/outlines.py foreground`; the ring in largest radii.
PLATEAU_PERCENTILE, RING = 85, 1 / 2
_LEAST = 20  # voxels around a core, below which a cell keeps its levels


def ring_vox(settings: ObjectSettings, size: VoxelSize) -> Triple:
    """Voxels around a cell's core that its background is taken from, z, y, x."""
    z, y, x = (int(RING * settings.largest_radius_um / edge) + 1 for edge in size)
    return z, y, x


def own_levels(
    levels: np.ndarray,
    grey: np.ndarray,
    numbers: np.ndarray,
    wanted: np.ndarray,
    size: VoxelSize,
    settings: ObjectSettings,
) -> np.ndarray:
    """Where voxels lie between the background and the plateau of their cell, 0 to 255.

    Parameters
    ----------
    levels : (z, y, x) uint8 array
        See `voxmill.cells.foreground.of_image`.
    grey : (z, y, x) float32 array
        Smoothed grey values.
    numbers : (z, y, x) int array
        The territory, counted from 1, that a voxel belongs to; 0 for none.
    wanted : (K,) bool array
        Which of the territories to work on; the others keep their levels.
    size : VoxelSize
    settings : ObjectSettings

    Returns
    -------
    (z, y, x) uint8 array
        `levels`, in the wanted territories the new ones. A cell keeps its levels if it has no core,
        no surroundings (other cells on all sides), or is not brighter than they are.
    """
    found, reach = levels.copy(), ring_vox(settings, size)
    distance = RING * settings.largest_radius_um * (1 + 1e-9)
    for k, box in enumerate(ndimage.find_objects(numbers, max_label=len(wanted))):
        if box is None or not wanted[k]:
            continue
        around = tuple(
            slice(max(0, part.start - by), part.stop + by)
            for part, by in zip(box, reach, strict=True)
        )
        own, values = numbers[around] == k + 1, grey[around]
        core = own & (levels[around] > LEVELS // 2)
        if not core.any():
            continue
        far = ndimage.distance_transform_edt(~core, sampling=tuple(size))
        ring = (numbers[around] == 0) & (far <= distance)
        if ring.sum() < _LEAST:
            continue
        plateau, dark = np.percentile(values[core], PLATEAU_PERCENTILE), np.median(values[ring])
        if plateau > dark:
            share = np.clip((values[own] - dark) / (plateau - dark), 0, 1)
            found[around][own] = np.rint(share * LEVELS).astype(np.uint8)
    return found
