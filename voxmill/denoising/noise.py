"""Rician noise of MR magnitude images: its level, its bias, and a transform that evens it out.

The magnitude of a signal nu with Gaussian noise of standard deviation sigma in its real and its
imaginary part follows Rice's distribution: near 0 its mean lies above nu and its standard
deviation below sigma.
"""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage, special

# Mean and standard deviation of a Rayleigh distribution (no signal) with sigma 1.
RAYLEIGH_MEAN = np.sqrt(np.pi / 2)
RAYLEIGH_STD = np.sqrt(2 - np.pi / 2)
# The noise level is estimated from this share of the object, the part with the least gradient.
SMOOTH_SHARE = 0.2


def rician_mean(signal: ArrayLike, sigma: float = 1.0) -> np.ndarray:
    """Mean of Rice's distribution.

    Parameters
    ----------
    signal : float array
        True magnitude nu >= 0, in the units of `sigma`.
    sigma : float
        Standard deviation of the noise in each of the two parts.

    Returns
    -------
    float array
        sigma sqrt(pi / 2) L(-nu^2 / (2 sigma^2)), where L is the Laguerre polynomial of degree 1/2.
    """
    t = (np.asarray(signal, float) / sigma) ** 2 / 4
    return sigma * RAYLEIGH_MEAN * ((1 + 2 * t) * special.i0e(t) + 2 * t * special.i1e(t))


def rician_std(signal: ArrayLike, sigma: float = 1.0) -> np.ndarray:
    """Standard deviation of Rice's distribution; takes the arguments of `rician_mean`."""
    values = np.asarray(signal, float)
    # The difference of squares loses all digits for large signals; its series is
    # sigma^2 (1 - sigma^2 / (2 nu^2) - ...).
    variance = 2 * sigma**2 + values**2 - rician_mean(values, sigma) ** 2
    with np.errstate(divide="ignore"):
        series = sigma**2 * (1 - sigma**2 / (2 * values**2))
    return np.sqrt(np.where(values > 100 * sigma, series, variance))


def remove_bias(mean: ArrayLike, sigma: float) -> np.ndarray:
    """Compute the signal from its Rician mean, which even an average of many scans overestimates.

    Parameters
    ----------
    mean : float array
        Means of magnitudes; those below the mean of pure noise, sigma sqrt(pi / 2), become 0.
    sigma : float
        Noise level in the units of `mean`.

    Returns
    -------
    float array
        Of the shape of `mean`.
    """
    signals, means = _mean_table()
    return _interpolate(np.asarray(mean, float) / sigma, means, signals) * sigma


def add_rician(volume: np.ndarray, sigma: float, seed: int) -> np.ndarray:
    """Add Rician noise to a volume.

    Parameters
    ----------
    volume : float array
        True magnitudes.
    sigma : float
        Noise level in the volume's units.
    seed : int

    Returns
    -------
    float32 array
    """
    random = np.random.default_rng(seed)
    real = volume + random.normal(0.0, sigma, np.shape(volume))
    imaginary = random.normal(0.0, sigma, np.shape(volume))
    return np.hypot(real, imaginary).astype(np.float32)


@dataclass(frozen=True)
class Stabiliser:
    """A transform after which Rician noise has a standard deviation of about 1 everywhere.

    A. Foi, "Noise estimation and removal in MR imaging: the variance-stabilization approach",
    ISBI 2011: stabilise, denoise as if the noise were Gaussian, and apply the exact unbiased
    inverse, which maps the expectation of the transformed data to the signal. Foi's transforms are
    optimised tables. This one is built numerically: it begins as the integral of 1 / std over the
    mean; then its slope is divided by the remaining standard deviation, several times.

    Parameters
    ----------
    sigma : float
        Noise level in the units of the volume.
    """

    sigma: float

    def forward(self, volume: ArrayLike) -> np.ndarray:
        """Transform a volume to even noise: float array of the same shape."""
        values, transformed, _, _ = _stabilisation_table()
        return _interpolate(np.asarray(volume, float) / self.sigma, values, transformed)

    def inverse(self, stabilised: ArrayLike) -> np.ndarray:
        """Compute the signal of a denoised stabilised volume: float array of the same shape."""
        _, _, signals, expectations = _stabilisation_table()
        return _interpolate(np.asarray(stabilised, float), expectations, signals) * self.sigma


def _interpolate(x: np.ndarray, nodes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Interpolate linearly; above the last node the slope is 1, as all tables end linearly."""
    return np.interp(x, nodes, values) + np.maximum(x - nodes[-1], 0)


@functools.cache
def _mean_table() -> tuple[np.ndarray, np.ndarray]:
    """Nodes of the Rician mean for sigma 1: signals and their means."""
    signals = np.concatenate((np.linspace(0, 10, 4001), np.geomspace(10.01, 1e3, 2000)))
    return signals, rician_mean(signals)


@functools.cache
def _stabilisation_table() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Nodes of the transform (value, transformed) and of its inverse (signal, expectation)."""
    signals = np.concatenate((np.linspace(0, 8, 401), np.linspace(8.1, 40, 320)))
    values = np.linspace(0, 50, 5001)
    density = _rician_density(values[None, :], signals[:, None])
    density /= density.sum(axis=1, keepdims=True)
    means, stds = density @ values, rician_std(signals)
    slope = 1 / np.interp(values, means, stds)
    for _ in range(20):
        transformed = _integrate(slope, values)
        first = density @ transformed
        remaining = np.sqrt(density @ transformed**2 - first**2)
        # The step is damped: neighbouring signals share values, so a full one would overshoot.
        slope /= np.interp(values, means, remaining) ** 0.5
    transformed = _integrate(slope, values)
    return values, transformed, signals, density @ transformed


def _integrate(slope: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    steps = 0.5 * (slope[1:] + slope[:-1]) * np.diff(nodes)
    return np.concatenate(([0.0], np.cumsum(steps)))


def _rician_density(value: np.ndarray, signal: np.ndarray) -> np.ndarray:
    """Rice's density for sigma 1; the scaled Bessel function avoids overflow."""
    return value * np.exp(-((value - signal) ** 2) / 2) * special.i0e(value * signal)


def estimate_sigma(volume: np.ndarray) -> float:
    """Estimate the noise level of a magnitude image from the image alone.

    It is the median absolute deviation of the finest wavelet coefficients inside the object, away
    from edges, corrected for the Rician standard deviation at the object's signal (P. Coupe et
    al., "Robust Rician noise estimation for MR images", Medical Image Analysis 14, 2010, with the
    correction of C. G. Koay and P. J. Basser, 2006). Voxels of exactly 0, which masks leave, are
    not used.

    Parameters
    ----------
    volume : (z, y, x) float array
        Magnitudes.

    Returns
    -------
    float
        Sigma in the units of `volume`; 0 where noise cannot be told from structure.
    """
    even = tuple(slice(0, side - side % 2) for side in volume.shape)
    blocks = _blocks(np.asarray(volume, float)[even])
    signs = np.array([1, -1])
    detail = np.einsum("zaybxc,a,b,c->zyx", blocks, signs, signs, signs) / np.sqrt(8)
    local = blocks.mean(axis=(1, 3, 5))
    valid = (blocks != 0).all(axis=(1, 3, 5))
    if valid.sum() < 64:
        return 0.0
    object_ = valid & (local > _otsu(local[valid]))
    gradient = ndimage.gaussian_gradient_magnitude(local, 1.0)
    # The gradient of block means is independent of the noise within blocks: no selection bias.
    smooth = object_ & (gradient <= np.quantile(gradient[object_], SMOOTH_SHARE))
    measured = np.median(np.abs(detail[smooth])) / 0.6745
    return float(_undo_rician(measured, np.sqrt(np.mean(local[smooth] ** 2))))


def _blocks(volume: np.ndarray) -> np.ndarray:
    """View a volume of even sides as (z, 2, y, 2, x, 2)."""
    z, y, x = (side // 2 for side in volume.shape)
    return volume.reshape(z, 2, y, 2, x, 2)


def _otsu(values: np.ndarray) -> float:
    from skimage.filters import threshold_otsu

    return float(threshold_otsu(values)) if values.min() < values.max() else -np.inf


def _undo_rician(std: float, mean: float) -> float:
    """Compute sigma from the std and the mean of magnitudes by Koay's fixed-point iteration."""
    if std <= 0:
        return 0.0
    if mean / std <= RAYLEIGH_MEAN / RAYLEIGH_STD:
        return std / RAYLEIGH_STD
    sigma = std
    for _ in range(100):
        sigma = std / float(rician_std(remove_bias(mean, sigma) / sigma))
    return sigma
