"""Random changes of a patch and of its targets.

They imitate what differs between brains, and within one: contrast, level, light that fades with
depth or across the field of view, layers of brighter tissue, seams between acquisitions, noise and
blur. All act on normalised intensities, so that a contrast can be multiplied.
"""

import numpy as np
from scipy import ndimage

from voxmill.config.training import ROTATIONS, Augmentation

# Standard deviation of the blur that makes white noise as coarse as noise that was interpolated.
GRAIN_VOX = 0.6


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
    # Light comes from somewhere before the patch is turned: z is still the depth.
    patch = _change_light(patch, settings, rng)
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


def _ramp(shape: tuple[int, ...], axis: int) -> np.ndarray:
    """Positions from -0.5 to 0.5 along an axis, to be broadcast over the others."""
    positions = np.linspace(-0.5, 0.5, shape[axis], dtype=np.float32)
    return positions.reshape([-1 if a == axis else 1 for a in range(len(shape))])


def _change_light(
    patch: np.ndarray, settings: Augmentation, rng: np.random.Generator
) -> np.ndarray:
    """Gradients and fading, layers of tissue, seams; each in half or a third of the patches."""
    if settings.gradient and rng.random() < 0.5:
        direction = np.eye(3)[0] if rng.random() < 0.5 else rng.normal(size=3)
        direction *= rng.uniform(-settings.gradient, settings.gradient) / np.abs(direction).sum()
        # The exponential of a sum is a product: one factor an axis.
        for axis, slope in enumerate(direction.astype(np.float32)):
            if slope:
                patch = patch * np.exp(slope * _ramp(patch.shape, axis))
    if settings.layer and rng.random() < 1 / 3:
        axis = 0 if rng.random() < 0.5 else int(rng.integers(3))
        centre, half = rng.uniform(-0.6, 0.6), rng.uniform(0.05, 0.5)
        edge = np.float32(rng.uniform(0.01, 0.15))
        distance = (np.abs(_ramp(patch.shape, axis) - np.float32(centre)) - np.float32(half)) / edge
        inside = 1 / (1 + np.exp(np.clip(distance, -20, 20)))
        level, contrast = rng.uniform(-settings.layer, settings.layer, 2).astype(np.float32)
        patch = patch * np.exp(contrast * inside) + level * inside
    if settings.seam and rng.random() < 1 / 3:
        axis = int(rng.integers(3))
        beyond = _ramp(patch.shape, axis) > np.float32(rng.uniform(-0.5, 0.5))
        contrast, level = rng.uniform(-settings.seam, settings.seam, 2).astype(np.float32)
        patch = np.where(beyond, patch * np.exp(contrast) + level / 4, patch)
    return patch


def _change_intensities(
    patch: np.ndarray, settings: Augmentation, rng: np.random.Generator
) -> np.ndarray:
    # A quarter of the patches is blurred, and half of them get noise.
    if settings.blur_vox and rng.random() < 0.25:
        patch = ndimage.gaussian_filter(patch, rng.uniform(0, settings.blur_vox, 3), mode="nearest")
    scale = np.float32(np.exp(rng.uniform(-settings.scale, settings.scale)))
    shift = np.float32(rng.uniform(-settings.shift, settings.shift))
    patch = patch * scale + shift
    if settings.noise and rng.random() < 0.5:
        patch = patch + rng.uniform(0, settings.noise) * _noise(patch, rng)
    return patch.astype(np.float32, copy=False)


def _noise(patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise of standard deviation 1 at intensity 0, its variance rising with the intensity."""
    noise = rng.standard_normal(patch.shape, np.float32)
    if rng.random() < 0.5:
        noise = ndimage.gaussian_filter(noise, GRAIN_VOX)
        noise /= noise.std() + np.float32(1e-6)
    noise *= np.sqrt(1 + np.clip(patch, 0, None))
    return noise
