"""PSNR and SSIM of a volume against a reference, over all voxels and in a mask."""

import numpy as np
from skimage.metrics import structural_similarity


def compare(volume: np.ndarray, reference: np.ndarray, mask: np.ndarray | None = None) -> dict:
    """Compute PSNR and SSIM; the data range is the maximum of the reference.

    Parameters
    ----------
    volume, reference : (z, y, x) float arrays
        No side is shorter than 7 voxels, scikit-image's window for SSIM.
    mask : (z, y, x) bool array, optional
        Voxels (of the brain) over which `psnr_mask` and `ssim_mask` are taken.

    Returns
    -------
    dict
        psnr (dB), ssim, and, with a mask, psnr_mask and ssim_mask.
    """
    top = float(reference.max())
    _, similarity = structural_similarity(reference, volume, data_range=top, full=True)
    squares = (np.asarray(volume, np.float64) - reference) ** 2
    # The mean of local SSIM over the interior is scikit-image's own SSIM.
    inner = (slice(3, -3),) * 3
    found = {"psnr": psnr(squares.mean(), top), "ssim": float(similarity[inner].mean())}
    if mask is not None:
        found["psnr_mask"] = psnr(squares[mask].mean(), top)
        found["ssim_mask"] = float(similarity[mask].mean())
    return found


def psnr(mean_square_error: float, data_range: float) -> float:
    """Compute the peak signal-to-noise ratio in dB; it is infinite if the error is 0."""
    if mean_square_error == 0:
        return float("inf")
    return float(10 * np.log10(data_range**2 / mean_square_error))
