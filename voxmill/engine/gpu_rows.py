"""Lengths and tables of the pass along x that is one kernel (`triton_rows`)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from voxmill.engine.gpu import power_of_two

if TYPE_CHECKING:
    import torch

# Voxels in a row: at most 32 times 63, so that a program's matrices fit its registers.
_MOST = (32, 63)
# Operations that cost as much as a byte to or from memory: on paper, an H100 copies 2.7e12 bytes a
# second and does 5e14 operations in TensorFloat-32, of which half are counted on.
_FLOP_PER_BYTE = 90
_BYTES_PER_VOXEL = 80  # that all kernels together move for a feature map
_TILE = 1024  # frequencies that a program of 4 warps computes at once without spilling registers


def blocks(factors: tuple[int, int]) -> tuple[int, int]:
    """Edges of the matrices of a row of `n1 * n2` voxels, `N1` and `K2`."""
    first, second = factors
    return max(16, power_of_two(first)), max(16, power_of_two(second // 2 + 1))


def shape(factors: tuple[int, int]) -> dict[str, int]:
    """What `activate_rows` is compiled for: edges of its matrices, rows and warps of a program."""
    first, second = blocks(factors)
    rows = max(2, _TILE // (first * second))
    warps = 4 if first * second * rows <= _TILE else 8
    return {"N1": first, "K2": second, "ROWS": rows, "num_warps": warps}


def flop(factors: tuple[int, int]) -> int:
    """Operations of a row, both ways: complex sums over `n1`, and real ones over `n2`."""
    first, second = blocks(factors)
    return 2 * (8 * first * first * second + 8 * first * second * second)


@functools.cache
def split_length(least: int) -> tuple[int, int] | None:
    """The cheapest row of at least `least` voxels, as `(n1, n2)`; None if there is none.

    Memory and operations are added, with the numbers of an H100.

    Examples
    --------
    >>> split_length(490), split_length(1034), split_length(2017)
    ((16, 31), (22, 47), None)
    """
    found = [
        (first, second)
        for first in range(1, _MOST[0] + 1)
        if (second := max(1, -(-least // first))) <= _MOST[1]
    ]
    return min(
        found,
        key=lambda n: (n[0] * n[1] * _BYTES_PER_VOXEL + flop(n) / _FLOP_PER_BYTE, n[1]),
        default=None,
    )


def tables(factors: tuple[int, int], device: torch.device) -> torch.Tensor:
    """The matrices of a row, as `voxmill.engine.triton_rows` describes them.

    Parameters
    ----------
    factors : (2,) int
        `n1` and `n2`.
    device : torch.device

    Returns
    -------
    (n,) float32 tensor
    """
    import torch

    (first, second), (rows, columns) = factors, blocks(factors)
    j1, k1 = np.arange(first), np.arange(first)
    j2, k2 = np.arange(second), np.arange(second // 2 + 1)
    # A frequency of the upper half adds what its mirror does.
    counted = np.where((k2 == 0) | (2 * k2 == second), 1.0, 2.0)[:, None]
    back = 2j * np.pi / second * (np.outer(k2, j2) % second)
    parts = (
        (np.exp(2j * np.pi / first * (np.outer(j1, k1) % first)), (rows, rows)),
        (np.exp(2j * np.pi / (first * second) * np.outer(j1, k2)), (rows, columns)),
        (counted * np.exp(back), (columns, 2 * columns)),
        (np.exp(back).T, (2 * columns, columns)),
    )
    numbers = []
    for matrix, shape in parts:
        padding = [(0, n - m) for n, m in zip(shape, matrix.shape, strict=True)]
        padded = np.pad(matrix, padding)
        numbers += [padded.real.ravel(), padded.imag.ravel()]
    return torch.from_numpy(np.concatenate(numbers).astype(np.float32)).to(device)
