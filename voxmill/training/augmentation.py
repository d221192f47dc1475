"""Random changes of a patch that leave its cells where they are, or move them along."""

import numpy as np
from scipy import ndimage

from voxmill.config.training import ROTATIONS, Augmentation


def augment(patch, maps, voxel_size_um, settings: Augmentation, rng):
    """Change a patch and the maps that belong to it.

    Parameters
    ----------
    patch : (z, y, x) float32 array
        Normalised intensities.
    maps : (·, z, y, x) float32 array
        Targets and weights: moved along, values untouched.
    voxel_size_um : (3,) float
        Only axes of one voxel size and one length are exchanged.
    settings : Augmentation
    rng : numpy.random.Generator

    Returns
    -------
    patch, maps : arrays of the same shapes
    """
    if settings.flip:
        for axis in range(3):
            if rng.random() < 0.5:
                patch, maps = np.flip(patch, axis), np.flip(maps, axis + 1)
    for a, b in ROTATIONS[settings.rotate]:
        if voxel_size_um[a] == voxel_size_um[b] and patch.shape[a] == patch.shape[b]:
            turns = int(rng.integers(4))
            patch = np.rot90(patch, turns, (a, b))
            maps = np.rot90(maps, turns, (a + 1, b + 1))
    return np.ascontiguousarray(_intensities(patch, settings, rng)), np.ascontiguousarray(maps)


def _intensities(patch, settings: Augmentation, rng):
    # Half of the patches stay as sharp and as clean as they are.
    if settings.blur_vox and rng.random() < 0.25:
        patch = ndimage.gaussian_filter(patch, rng.uniform(0, settings.blur_vox), mode="nearest")
    scale = np.float32(np.exp(rng.uniform(-settings.scale, settings.scale)))
    shift = np.float32(rng.uniform(-settings.shift, settings.shift))
    patch = patch * scale + shift
    if settings.noise and rng.random() < 0.5:
        sigma = np.float32(rng.uniform(0, settings.noise))
        patch = patch + sigma * rng.standard_normal(patch.shape, np.float32)
    return patch
