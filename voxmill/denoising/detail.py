"""Restore detail that a fit has smoothed away: a collaborative Wiener filter of the scan.

This is the second step of BM4D (M. Maggioni et al., "Nonlocal transform-domain filter for
volumetric data denoising and reconstruction", IEEE Transactions on Image Processing 22, 2013),
implemented from the paper's formulas. The fit replaces that method's first step: similar blocks of
the fit are grouped, and in each group the cosine coefficients of the noisy volume are multiplied by
power / (power + noise power), where the power is that of the fit. Where the fit has structure, the
coefficients of the scan pass nearly unchanged.
"""

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

# Distance of neighbouring reference blocks, and of the farthest similar block, along each axis.
STEP_VOX, WINDOW_VOX = 2, 4
# Blocks in a group.
GROUP = 16
# Layers of reference blocks compared at a time and references filtered at a time, to limit memory.
LAYERS, BATCH = 4, 4096
# Value of voxels beyond the border: no block that holds one is similar to any other.
FAR = math.inf


def restore_detail(noisy: Tensor, estimate: Tensor, level: float, block_vox: int) -> Tensor:
    """Filter the noisy volume by the collaborative Wiener filter that an estimate guides.

    Parameters
    ----------
    noisy, estimate : (z, y, x) float32 tensors on one device
        The noise of the first has the same level everywhere; no side is shorter than
        `block_vox`.
    level : float
        Standard deviation of the noise, more than 0.
    block_vox : int
        Side of the blocks, 2 or more.

    Returns
    -------
    (z, y, x) float32 tensor
    """
    reach = block_vox - 1
    pads = []
    for side in noisy.shape[::-1]:
        pads += [reach, reach + -(side + reach - 1) % STEP_VOX]
    mode = "reflect" if min(noisy.shape) > max(pads) else "replicate"
    pair = torch.stack((noisy, estimate)) / level
    pair = functional.pad(pair[:, None], pads, mode=mode)[:, 0]
    shape = pair.shape[1:]
    values = pair.flatten(1)
    sums = torch.zeros_like(values)
    spread, within = cosine(GROUP).to(values), cosine_of_blocks(block_vox).to(values)
    inside = block_offsets(block_vox, shape).to(values.device)
    for corners in _similar_blocks(pair[1], block_vox):
        for part in corners.split(BATCH):
            voxels = part[:, :, None] + inside
            noisy_part, power = spread @ values[:, voxels] @ within.T
            power = power.square_()
            shares = power / (power + 1)
            # Groups with fewer coefficients carry less noise and count more.
            weight = 1 / shares.square().sum(dim=(1, 2), keepdim=True).clamp(min=1)
            found = spread.T @ (noisy_part * shares) @ within * weight
            sums[0].index_add_(0, voxels.flatten(), found.flatten())
            sums[1].index_add_(0, voxels.flatten(), weight.expand_as(found).flatten())
    total, count = sums.reshape(pair.shape)
    inner = tuple(slice(reach, reach + side) for side in noisy.shape)
    return level * (total / count)[inner]


def _similar_blocks(estimate: Tensor, block_vox: int) -> Iterator[Tensor]:
    """Find the blocks most similar to each reference block, a few layers of references at a time.

    Yields flat indices of the blocks' corners, (references, GROUP); each group holds its reference.
    """
    reach = WINDOW_VOX
    shape = estimate.shape
    bordered = functional.pad(estimate[None], (reach,) * 6, value=FAR)[0]
    shifts = list(itertools.product(range(-reach, reach + 1), repeat=3))
    flat = torch.tensor([(z * shape[1] + y) * shape[2] + x for z, y, x in shifts])
    flat = flat.to(estimate.device)
    layers = range(0, shape[0] - block_vox + 1, STEP_VOX)
    for first in layers[::LAYERS]:
        last = min(first + (LAYERS - 1) * STEP_VOX + block_vox, shape[0])
        here = estimate[first:last]
        distances = torch.stack([_distances(here, bordered, first, s, block_vox) for s in shifts])
        # A block always comes first in its own group, so that every voxel lies in some block.
        distances[shifts.index((0, 0, 0))] = -1
        counts = distances.shape[1:]
        chosen = distances.flatten(1).topk(GROUP, dim=0, largest=False, sorted=True).indices.T
        corner = [torch.arange(n, device=estimate.device) * STEP_VOX for n in counts]
        corner[0] = corner[0] + first
        start = (corner[0][:, None, None] * shape[1] + corner[1][:, None]) * shape[2] + corner[2]
        yield start.flatten()[:, None] + flat[chosen]


def _distances(
    here: Tensor, bordered: Tensor, first: int, shift: tuple[int, ...], block_vox: int
) -> Tensor:
    """Mean squared difference of every reference block from the block that lies `shift` away."""
    starts = (first + WINDOW_VOX + shift[0], WINDOW_VOX + shift[1], WINDOW_VOX + shift[2])
    window = tuple(slice(s, s + side) for s, side in zip(starts, here.shape, strict=True))
    squares = (bordered[window] - here).square_()
    return functional.avg_pool3d(squares[None], block_vox, STEP_VOX)[0]


def cosine(size: int) -> Tensor:
    """Return the orthonormal cosine transform (DCT-II) as a (size, size) float32 matrix."""
    order = torch.arange(size, dtype=torch.float64)
    lines = torch.cos(math.pi * (order[None] + 0.5) * order[:, None] / size)
    lines *= math.sqrt(2 / size)
    lines[0] /= math.sqrt(2)
    return lines.float()


def cosine_of_blocks(block_vox: int) -> Tensor:
    """Return `cosine` along all three axes of a block: a (block_vox**3, block_vox**3) matrix."""
    line = cosine(block_vox)
    return torch.kron(torch.kron(line, line), line)


def block_offsets(block_vox: int, shape: tuple[int, ...]) -> Tensor:
    """Flat indices of a block's voxels in a volume of a shape, relative to the block's corner."""
    z, y, x = torch.meshgrid(*[torch.arange(block_vox)] * 3, indexing="ij")
    return ((z * shape[1] + y) * shape[2] + x).flatten()
