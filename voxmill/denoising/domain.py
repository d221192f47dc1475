"""Transform the intensities of a scan to the volume that a network fits, and back."""

from dataclasses import dataclass

import numpy as np

from voxmill.config.denoising import DenoiseSettings
from voxmill.denoising.noise import Stabiliser, estimate_sigma, remove_bias
from voxmill.runtime.errors import VoxmillError

# This margin of (0, 1) stays free at both ends, so that no voxel lies where the sigmoid is flat.
MARGIN = 0.05


@dataclass(frozen=True)
class Domain:
    """The transform from a scan to the volume that is fitted, and its inverse.

    Attributes
    ----------
    noise : str
        As in `DenoiseSettings`.
    sigma : float
        Noise level in the scan's units; 0 if none is needed (`DenoiseSettings.needs_level`).
    low, high : float
        Values that become `MARGIN` and 1 - `MARGIN`; stabilised values for `noise: rician`.
    pads : tuple of (before, after)
        Voxels added on each axis.
    """

    noise: str
    sigma: float
    low: float
    high: float
    pads: tuple[tuple[int, int], ...]

    @property
    def level(self) -> float:
        """Standard deviation of the noise in the normalised volume."""
        level = 1.0 if self.noise == "rician" else self.sigma
        return (1 - 2 * MARGIN) * level / (self.high - self.low)

    def forward(self, scan: np.ndarray) -> np.ndarray:
        """Normalise and pad a scan: float32 array."""
        values = Stabiliser(self.sigma).forward(scan) if self.noise == "rician" else scan
        share = (np.asarray(values, np.float64) - self.low) / (self.high - self.low)
        normal = MARGIN + (1 - 2 * MARGIN) * share
        return np.pad(normal, self.pads, mode="symmetric").astype(np.float32)

    def inverse(self, fitted: np.ndarray) -> np.ndarray:
        """Compute intensities of a fitted volume, without the padding: float32 array."""
        share = (self.unpad(np.asarray(fitted, np.float64)) - MARGIN) / (1 - 2 * MARGIN)
        values = self.low + share * (self.high - self.low)
        if self.noise == "rician":
            values = Stabiliser(self.sigma).inverse(values)
        elif self.noise == "rician_bias":
            values = remove_bias(values, self.sigma)
        return values.astype(np.float32)

    def unpad(self, padded: np.ndarray) -> np.ndarray:
        """Cut off the padding: a view with the shape of the scan."""
        slices = zip(self.pads, padded.shape, strict=True)
        return padded[tuple(slice(before, side - after) for (before, after), side in slices)]


def make_domain(scan: np.ndarray, settings: DenoiseSettings) -> Domain:
    """Choose the domain in which a scan is fitted.

    Parameters
    ----------
    scan : (z, y, x) float array
        Intensities.
    settings : DenoiseSettings

    Raises
    ------
    VoxmillError
        If a noise level is needed and cannot be estimated.
    """
    sigma = 0.0
    if settings.needs_level:
        sigma = settings.sigma or estimate_sigma(scan)
        if not sigma > 0:
            raise VoxmillError(
                "denoise setting sigma: no noise level could be estimated from this scan (is it "
                "smoothed or without noise?). Set `sigma`, or settings that need none: "
                "`noise: gaussian`, `input: scan` with a `mask_fraction`, `detail_block_vox: 0`."
            )
    values = Stabiliser(sigma).forward(scan) if settings.noise == "rician" else scan
    return Domain(
        noise=settings.noise,
        sigma=float(sigma),
        low=float(values.min()),
        high=float(values.max()),
        pads=padding(scan.shape, settings.network.least_side_vox),
    )


def padding(shape: tuple[int, ...], least_vox: int) -> tuple[tuple[int, int], ...]:
    """Voxels to add before and after each axis, so that no side is shorter than `least_vox`."""
    missing = [max(least_vox - side, 0) for side in shape]
    return tuple((lack // 2, lack - lack // 2) for lack in missing)
