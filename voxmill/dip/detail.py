"""Detail that a fit has smoothed away, taken back from the scan by an empirical Wiener filter.

The second step of BM3D and BM4D without their grouping (K. Dabov et al., "Image denoising by sparse
3-D transform-domain collaborative filtering", 2007): in every block, the cosine coefficients of the
noisy volume are weighed by power / (power + noise power), the power being that of an estimate.
Here the fit is the estimate: where it has structure, the scan's own coefficients come through.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

# Planes that are worked on at a time: coefficients take block**3 times the memory of the volume.
SLAB_VOX = 16


def restore_detail(noisy: Tensor, estimate: Tensor, level: float, block_vox: int) -> Tensor:
    """The empirical Wiener estimate, averaged over all positions of the block.

    Parameters
    ----------
    noisy, estimate : (z, y, x) float32 tensors on one device
        Even noise in the first; no side shorter than `block_vox`.
    level : float
        Standard deviation of the noise.
    block_vox : int
        Side of the blocks, 2 or more.

    Returns
    -------
    (z, y, x) float32 tensor
    """
    reach = block_vox - 1
    pair = torch.stack((noisy, estimate))[:, None]
    pair = functional.pad(pair, (reach,) * 6, mode="reflect")
    slabs = [
        _restore(pair[:, :, start : start + SLAB_VOX + 2 * reach], level, block_vox)
        for start in range(0, noisy.shape[0], SLAB_VOX)
    ]
    return torch.cat(slabs)


def _restore(pair: Tensor, level: float, block_vox: int) -> Tensor:
    """Where all blocks are whole, of a (2, 1, z, y, x) pair of noisy volume and estimate."""
    kernels = cosine_kernels(block_vox).to(pair.device)
    coefficients, power = functional.conv3d(pair, kernels).split(1)
    power = power.square()
    shares = power / (power + level**2)
    shares[:, 0] = 1.0  # a block's mean is never shrunk
    # Blocks with fewer coefficients carry less noise and count more, as in BM3D.
    weight = 1 / shares.square().sum(dim=1, keepdim=True)
    total = functional.conv_transpose3d(coefficients * shares * weight, kernels)
    count = functional.conv_transpose3d(weight, torch.ones_like(kernels[:1]))
    inner = (slice(block_vox - 1, 1 - block_vox),) * 3
    return (total / count)[0, 0][inner]


def cosine_kernels(block_vox: int) -> Tensor:
    """The orthonormal cosine transform (DCT-II) of a block, as kernels of a convolution.

    Returns
    -------
    (block_vox**3, 1, block_vox, block_vox, block_vox) float32 tensor
        The first is the constant one.
    """
    order = torch.arange(block_vox, dtype=torch.float64)
    lines = torch.cos(math.pi * (order[None] + 0.5) * order[:, None] / block_vox)
    lines *= math.sqrt(2 / block_vox)
    lines[0] /= math.sqrt(2)
    kernels = torch.einsum("az,by,cx->abczyx", lines, lines, lines)
    return kernels.reshape(block_vox**3, 1, block_vox, block_vox, block_vox).float()
