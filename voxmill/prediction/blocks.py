"""The blocks of a tile: as large as the memory allows, and halved where it was not enough."""

import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

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
    """Blocks that each fit the budget, cut so that all of them together need the least.

    What they need counts their halos and the margins of their transforms, so that it stands for
    what they cost. A core is cut evenly, its longest edge first, until a block fits; of other cuts
    into no more blocks the cheapest is taken.

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
            cut = partial(block_around, halo=halo, window_shape=window_shape, multiple=multiple)
            cuts = _cheapest(core, cuts, cut, functools.cache(needed), budget_bytes)
            return [cut(part) for part in core.split(cuts)]
        if max(worst.core.shape) == 1:
            raise VoxmillError(
                f"memory: one voxel with its halo of {halo} voxels needs "
                f"{gib(needed(worst.box.shape))}, there are {gib(budget_bytes)}. Give the job "
                "more memory or choose a smaller halo."
            )
        cuts[int(np.argmax(worst.core.shape))] += 1


def _cheapest(
    core: Box,
    cuts: Sequence[int],
    cut: Callable[[Box], Block],
    needed: Callable[[Triple], int],
    budget_bytes: int,
) -> list[int]:
    """Cuts into no more blocks than `cuts` that fit the budget and need the least in all."""
    tried = [range(1, min(2 * n + 1, edge) + 1) for n, edge in zip(cuts, core.shape, strict=True)]
    # How many blocks have which edge, for each axis and number of cuts.
    edges: list[dict[int, Counter[int]]] = [{}, {}, {}]
    for axis, numbers in enumerate(tried):
        for number in numbers:
            parts = core.split([number if a == axis else 1 for a in range(3)])
            edges[axis][number] = Counter(cut(part).box.shape[axis] for part in parts)
    best, least = list(cuts), float("inf")
    for candidate in itertools.product(*tried):
        if math.prod(candidate) > math.prod(cuts):
            continue
        total, largest = 0, 0
        for z, y, x in itertools.product(*(edges[a][n] for a, n in enumerate(candidate))):
            size = needed((z, y, x))
            largest = max(largest, size)
            total += size * math.prod(
                edges[a][n][e] for a, (n, e) in enumerate(zip(candidate, (z, y, x), strict=True))
            )
        if largest <= budget_bytes and total < least:
            best, least = list(candidate), total
    return best


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
