"""The blocks of a tile: as large as the memory allows, and halved where it was not enough."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from voxmill.geometry import Box, Triple
from voxmill.runtime.errors import VoxmillError


@dataclass(frozen=True)
class Block:
    """A part of a tile that is evaluated at once, in the coordinates of the tile's window.

    Parameters
    ----------
    core : Box
        What is kept of the result.
    box : Box
        What the network sees: the core and its halo, clipped at the window.
    """

    core: Box
    box: Box


def plan_blocks(
    window_shape: Triple,
    core: Box,
    halo: Triple,
    needed: Callable[[Triple], int],
    budget_bytes: int,
    multiple: int = 1,
) -> list[Block]:
    """The fewest blocks that each fit the budget: the core cut evenly, longest edge first.

    Parameters
    ----------
    window_shape : (3,) int
        Voxels of the tile with its halo.
    core : Box
        The tile's core in the window.
    halo : (3,) int
        Halo of each block's core, clipped at the window.
    needed : callable
        Box shape -> bytes.
    budget_bytes : int
    multiple : int
        Boxes start and stop at multiples of it, so that a network that pools puts the same voxels
        together as in the whole window, whose edges are multiples too.

    Returns
    -------
    list of Block
        Their cores partition the tile's core.

    Raises
    ------
    VoxmillError
        If not even a core of one voxel fits.
    """
    cuts = [1, 1, 1]
    while True:
        blocks = [block_around(part, halo, window_shape, multiple) for part in core.split(cuts)]
        worst = max(blocks, key=lambda block: block.box.size)
        if needed(worst.box.shape) <= budget_bytes:
            return blocks
        if max(worst.core.shape) == 1:
            raise VoxmillError(
                f"memory: one voxel with its halo of {halo} voxels needs "
                f"{gib(needed(worst.box.shape))}, there are {gib(budget_bytes)}. Give the job "
                "more memory or choose a smaller halo."
            )
        cuts[int(np.argmax(worst.core.shape))] += 1


def block_around(core: Box, halo: Triple, window_shape: Triple, multiple: int) -> Block:
    """The block of a core with its halo, clipped at the window."""
    box = core.grow(halo, within=Box.from_shape(window_shape))
    return Block(core, box.aligned(multiple))


def halved(
    blocks: list[Block],
    cut: Callable[[Box], Block],
    needed: Callable[[Triple], int],
    limit: int,
) -> list[Block]:
    """Blocks cut at the middle of their longest edge until each needs `limit` bytes at most.

    A halo does not shrink with its block: a block of few voxels may stay above the limit. Halving
    its core is then all that can be done.

    Parameters
    ----------
    blocks : list of Block
    cut : callable
        Core -> block.
    needed : callable
        Box shape -> bytes.
    limit : int

    Raises
    ------
    VoxmillError
        If a block of one voxel needs more.
    """
    smaller = []
    for block in blocks:
        if needed(block.box.shape) <= limit:
            smaller.append(block)
            continue
        if max(block.core.shape) == 1:
            raise VoxmillError(
                f"memory: a block of one voxel with its halo ({block.box.shape} voxels) ran out of "
                "memory. Give the job more memory or choose a smaller halo."
            )
        cuts = [1, 1, 1]
        cuts[int(np.argmax(block.core.shape))] = 2
        halves = [cut(part) for part in block.core.split(cuts)]
        if max(needed(half.box.shape) for half in halves) > limit and max(block.core.shape) > 2:
            smaller += halved(halves, cut, needed, limit)
        else:
            smaller += halves
    return smaller


def gib(size: float) -> str:
    """Bytes in words.

    >>> gib(3 * 2**29)
    '1.50 GiB'
    """
    return f"{size / 2**30:.2f} GiB"
