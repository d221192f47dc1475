"""Random changes of a patch and of its targets."""

import numpy as np
from scipy import ndimage

from voxmill.config.training import ROTATIONS, Augmentation


def augment(
    patch: np.ndarray,
    targets: np.ndarray,
    voxel_size_um: tuple[float, float, float],
    settings: Augmentation,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Change a patch and its targets at random.

    Parameters
    ----------
    patch : (z, y, x) float32 array
        Normalised intensities.
    targets : (channels, z, y, x) float32 array
        Mirrored and rotated with the patch; their values stay.
    voxel_size_um : (3,) float
        Only axes of equal voxel size and equal length are exchanged.
    settings : Augmentation
    rng : numpy.random.Generator

    Returns
    -------
    patch, targets : arrays of the same shapes
    """
    if settings.flip:
        for axis in range(3):
            if rng.random() < 0.5:
                patch, targets = np.flip(patch, axis), np.flip(targets, axis + 1)
    for a, b in ROTATIONS[settings.rotate]:
        if voxel_size_um[a] == voxel_size_um[b] and patch.shape[a] == patch.shape[b]:
            quarters = int(rng.integers(4))
            patch = np.rot90(patch, quarters, (a, b))
            targets = np.rot90(targets, quarters, (a + 1, b + 1))
    patch = _change_intensities(patch, settings, rng)
    return np.ascontiguousarray(patch), np.ascontiguousarray(targets)


def _change_intensities(
    patch: np.ndarray, settings: Augmentation, rng: np.random.Generator
) -> np.ndarray:
    # A quarter of the patches is blurred, and half of them get noise.
    if settings.blur_vox and rng.random() < 0.25:
        patch = ndimage.gaussian_filter(patch, rng.uniform(0, settings.blur_vox), mode="nearest")
    scale = np.float32(np.exp(rng.uniform(-settings.scale, settings.scale)))
    shift = np.float32(rng.uniform(-settings.shift, settings.shift))
    patch = patch * scale + shift
    if settings.noise and rng.random() < 0.5:
        sigma = np.float32(rng.uniform(0, settings.noise))
        patch = patch + sigma * rng.standard_normal(patch.shape, np.float32)
    return patch
