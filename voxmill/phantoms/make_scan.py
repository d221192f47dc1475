"""A synthetic T1 scan of a brain-like object, with exact truth, for the demo and the tests."""

from dataclasses import dataclass

import nibabel
import numpy as np
from scipy import ndimage

from voxmill.denoising.noise import add_rician
from voxmill.denoising.settings import integer, number
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import writing
from voxmill.runtime.jobs import job

# Intensities of T1-weighted images, relative to white matter.
WHITE, GREY, DEEP_GREY, FLUID = 400.0, 270.0, 310.0, 90.0


@dataclass(frozen=True)
class PhantomSettings:
    """Settings of `draw_scan`.

    Parameters
    ----------
    shape_vox : (3,) tuple of int
        x, y, z as in the NIfTI file: left to right, back to front, bottom to top.
    voxel_size_mm : float
        Edge length of the cubic voxels.
    noise_percent : float
        Noise level in percent of the maximum.
    seed : int
        Of the folds and of the noise.
    """

    shape_vox: tuple[int, int, int] = (64, 72, 64)
    voxel_size_mm: float = 2.0
    noise_percent: float = 9.0
    seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "shape_vox", tuple(self.shape_vox))
        if len(self.shape_vox) != 3:
            raise VoxmillError(f"phantom setting shape_vox: expected 3, found {self.shape_vox}")
        for side in self.shape_vox:
            integer("phantom.shape_vox", side, 8)
        integer("phantom.seed", self.seed, 0)
        number("phantom.voxel_size_mm", self.voxel_size_mm, 0, 100, "> 0", above=True)
        number("phantom.noise_percent", self.noise_percent, 0, 100, "from 0 to 100")


def draw_scan(settings: PhantomSettings) -> tuple[np.ndarray, np.ndarray]:
    """White matter under a folded cortex, ventricles and deep nuclei, in an uneven coil field.

    Parameters
    ----------
    settings : PhantomSettings

    Returns
    -------
    reference : float32 array of the settings' shape
        Noise-free magnitudes, 0 outside of the brain.
    mask : bool array
        The brain.
    """
    random = np.random.default_rng(settings.seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in settings.shape_vox), indexing="ij")
    radius = np.sqrt((x / 0.78) ** 2 + (y / 0.9) ** 2 + (z / 0.8) ** 2)
    half = 0.4 * min(settings.shape_vox)
    # Voxels to the fluid: at the surface, in the sulci (where smooth noise crosses 0, in the outer
    # part), in the fissure between the hemispheres.
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
    """1 where the distance is positive, 0 where negative, with an edge of one voxel."""
    return np.clip(0.5 + distance_vox, 0, 1)


def _smooth_noise(random: np.random.Generator, shape: tuple, width: float) -> np.ndarray:
    """Noise of variance 1 and of a grain of `width` times the shape."""
    noise = random.normal(size=shape)
    noise = ndimage.gaussian_filter(noise, [width * side for side in shape])
    return (noise - noise.mean()) / noise.std()


@job
def make_scan(*, scan_path: str, reference_path: str, mask_path: str, settings: dict) -> None:
    """Write a phantom as NIfTI: the noisy scan (int16), its truth and its brain mask.

    Parameters
    ----------
    scan_path, reference_path, mask_path : path
    settings : dict
        Of `PhantomSettings`.
    """
    chosen = PhantomSettings(**settings)
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
