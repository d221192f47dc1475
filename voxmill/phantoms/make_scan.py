"""A synthetic T1 scan of a brain-like object with its noise-free image, for demo and tests."""

import nibabel
import numpy as np
from scipy import ndimage

from voxmill.config.scans import ScanPhantomSettings
from voxmill.denoising.noise import add_rician
from voxmill.runtime.files import writing
from voxmill.runtime.jobs import job

# Intensities of T1-weighted images, relative to white matter.
WHITE, GREY, DEEP_GREY, FLUID = 400.0, 270.0, 310.0, 90.0


def draw_scan(settings: ScanPhantomSettings) -> tuple[np.ndarray, np.ndarray]:
    """Draw white matter, a folded cortex, ventricles and deep nuclei in an uneven coil field.

    Returns
    -------
    reference : float32 array of the settings' shape
        Noise-free magnitudes, 0 outside the brain.
    mask : bool array
        The brain.
    """
    random = np.random.default_rng(settings.seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in settings.shape_vox), indexing="ij")
    radius = np.sqrt((x / 0.78) ** 2 + (y / 0.9) ** 2 + (z / 0.8) ** 2)
    half = 0.4 * min(settings.shape_vox)
    # Distance in voxels to the nearest fluid: outside the surface, in the sulci (where smooth noise
    # crosses 0 in the outer part) and in the fissure between the hemispheres.
    folds = _smooth_noise(random, settings.shape_vox, width=0.055)
    slope = np.sqrt(sum(part**2 for part in np.gradient(folds))) + 1e-6
    sulci = np.abs(folds) / slope + half * np.clip(0.62 - radius, 0, None)
    fissure = np.abs(x) * half + half * np.clip(0.7 - radius, 0, None) * 2
    depth = np.minimum(np.minimum(half * (0.95 - radius), sulci), fissure)
    volume = FLUID + (GREY - FLUID) * _step(depth - 0.5) + (WHITE - GREY) * _step(depth - 2.2)
    for side in (-1, 1):
        beside = x - 0.14 * side
        nucleus = np.sqrt((beside - 0.12 * side) ** 2 + (y / 1.7) ** 2 + z**2)
        volume += _step(half * (0.13 - nucleus)) * (DEEP_GREY - volume)
        arch = (z - 0.12 - 0.2 * y**2) / 1.2
        ventricle = np.sqrt(beside**2 + (y / 3.2) ** 2 + arch**2)
        volume += _step(half * (0.09 - ventricle)) * (FLUID - volume)
    texture = 1 + 0.015 * _smooth_noise(random, settings.shape_vox, width=0.03)
    coil = 1 + 0.1 * y - 0.08 * z
    mask = radius < 0.95
    return (volume * texture * coil * mask).astype(np.float32), mask


def _step(distance_vox: np.ndarray) -> np.ndarray:
    """Return 1 where the distance is positive and 0 where negative, with an edge of one voxel."""
    return np.clip(0.5 + distance_vox, 0, 1)


def _smooth_noise(random: np.random.Generator, shape: tuple, width: float) -> np.ndarray:
    """Draw noise of variance 1, smoothed over `width` times each side."""
    noise = random.normal(size=shape)
    noise = ndimage.gaussian_filter(noise, [width * side for side in shape])
    return (noise - noise.mean()) / noise.std()


@job(outputs=("scan_path", "reference_path", "mask_path"))
def make_scan(*, scan_path: str, reference_path: str, mask_path: str, settings: dict) -> None:
    """Write a phantom as NIfTI: the noisy scan (int16), the noise-free reference and the mask.

    Parameters
    ----------
    scan_path, reference_path, mask_path : path
    settings : dict
        Keys of `ScanPhantomSettings`; missing ones have their defaults.

    Raises
    ------
    VoxmillError
        If a setting is out of range.
    """
    chosen = ScanPhantomSettings.from_dict(settings)
    reference, mask = draw_scan(chosen)
    noisy = add_rician(reference, chosen.noise_percent / 100 * reference.max(), chosen.seed)
    affine = np.diag([*[chosen.voxel_size_mm] * 3, 1.0])
    affine[:3, 3] = -chosen.voxel_size_mm * (np.array(chosen.shape_vox) - 1) / 2
    volumes = (
        (scan_path, np.rint(noisy).astype(np.int16)),
        (reference_path, reference),
        (mask_path, mask.astype(np.uint8)),
    )
    for path, data in volumes:
        image = nibabel.Nifti1Image(data, affine)
        image.header.set_xyzt_units("mm", "sec")
        with writing(path) as scratch:
            nibabel.save(image, scratch)
