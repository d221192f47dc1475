"""The denoisers that the Deep Image Prior is compared with; each gets the true noise level."""

import numpy as np
from scipy import ndimage

from voxmill.denoising.noise import Stabiliser, remove_bias


def gaussian(noisy, sigma):
    """Gaussian filter whose width grows with the noise (0.3 to 0.6 voxels); removes the bias."""
    width_vox = 0.3 + 0.3 * min(sigma / (0.09 * noisy.max()), 1)
    return remove_bias(ndimage.gaussian_filter(noisy, width_vox), sigma)


def scikit_image_nlm(noisy, sigma):
    """Non-local means of scikit-image, in the stabilised domain."""
    from skimage.restoration import denoise_nl_means

    stabiliser = Stabiliser(sigma)
    stable = stabiliser.forward(noisy)
    mean = denoise_nl_means(
        stable, patch_size=5, patch_distance=4, h=0.8, sigma=1.0, fast_mode=False
    )
    return stabiliser.inverse(mean)


def dipy_nlm(noisy, sigma):
    """Non-local means of dipy with its own treatment of Rician noise."""
    from dipy.denoise.nlmeans import nlmeans

    return nlmeans(noisy, sigma=sigma, rician=True, patch_radius=1, block_radius=3)


def bm4d_raw(noisy, sigma):
    """BM4D on the magnitudes, as if their noise were Gaussian.

    It uses the default profile and one thread; with several threads its results vary slightly.
    """
    import bm4d

    profile = bm4d.BM4DProfile()
    profile.num_threads = 1
    return np.asarray(bm4d.bm4d(noisy, sigma, profile))


def bm4d_stabilised(noisy, sigma):
    """BM4D in the stabilised domain, as its authors treat Rician noise."""
    stabiliser = Stabiliser(sigma)
    return stabiliser.inverse(bm4d_raw(stabiliser.forward(noisy), 1.0))


METHODS = {
    "noisy": lambda noisy, sigma: noisy,
    "Gaussian": gaussian,
    "NLM (scikit-image)": scikit_image_nlm,
    "NLM (dipy, Rician)": dipy_nlm,
    "BM4D": bm4d_raw,
    "BM4D, stabilised": bm4d_stabilised,
}
