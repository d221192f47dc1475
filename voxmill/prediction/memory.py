"""Memory planned before it is used: the blocks of a tile that fit, and what to do if one doesn't.

Importing this module does not import torch.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from voxmill.engine.backend import Shape
from voxmill.engine.backends import choose
from voxmill.geometry import Box, Triple
from voxmill.prediction.flips import over_flips
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.free_memory import free_bytes

logger = logging.getLogger(__name__)

# The share of the free memory that blocks may use: the rest is for other data of the job.
SHARE = 0.85


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
        blocks = [_block(part, halo, window_shape, multiple) for part in core.split(cuts)]
        worst = max(blocks, key=lambda block: block.box.size)
        if needed(worst.box.shape) <= budget_bytes:
            return blocks
        if max(worst.core.shape) == 1:
            raise VoxmillError(
                f"memory: one voxel with its halo of {halo} voxels needs "
                f"{_gib(needed(worst.box.shape))}, there are {_gib(budget_bytes)}. Give the job "
                "more memory or choose a smaller halo."
            )
        cuts[int(np.argmax(worst.core.shape))] += 1


def _block(core: Box, halo: Triple, window_shape: Triple, multiple: int) -> Block:
    box = core.grow(halo, within=Box.from_shape(window_shape))
    return Block(core, box.aligned(multiple))


def shape_multiple(network: Any) -> int:
    """What the edges of a network's boxes must be multiples of."""
    return getattr(network.settings, "shape_multiple", 1)


def _aligned(
    volume: np.ndarray, core: Box, origin: Triple, multiple: int
) -> tuple[np.ndarray, Box]:
    """The volume padded with zeros so that its origin and edges are multiples, and its core."""
    front = [a % multiple for a in origin]
    pads = [(f, -(f + n) % multiple) for f, n in zip(front, volume.shape[1:], strict=True)]
    return np.pad(volume, [(0, 0), *pads]), core.shifted_by(front)


def box_bytes(backend: Any, settings: Any, precision: str, box_shape: Shape) -> int:
    """Peak bytes of a box: its voxels, and what the backend needs for it."""
    voxels = 4 * settings.inputs * int(np.prod(box_shape))
    return backend.predict_bytes(settings, box_shape, precision) + voxels


def predict_in_blocks(
    network: Any,
    volume: np.ndarray,
    core: Box,
    halo: Triple,
    backend: str = "auto",
    device: str = "cpu",
    precision: str = "float32",
    threads: int = 1,
    budget_bytes: int | None = None,
    flip_axes: tuple[int, ...] = (),
    origin: Triple = (0, 0, 0),
) -> np.ndarray:
    """Probabilities of a tile's core, in the largest blocks that fit the memory.

    If a block runs out of memory all the same, it and those after it are halved, and the log warns.

    Parameters
    ----------
    network : torch module
    volume : (inputs, z, y, x) float32 array
        The tile with its halo, normalised.
    core : Box
        The tile's core in the volume.
    halo : (3,) int
        Halo of each block.
    backend, device, precision, threads
        See `voxmill.engine.backends.forward`.
    budget_bytes : int, optional
        Default: a share of the free memory.
    flip_axes : tuple of int
        Test-time augmentation, see `voxmill.prediction.flips`.
    origin : (3,) int
        The first voxel of the tile's window in the whole volume, so that a network that pools puts
        the same voxels together in every tile.

    Returns
    -------
    (outputs, z, y, x) float32 array
        Of the core.

    Raises
    ------
    VoxmillError
        If no block fits, or as `choose`.
    """
    chosen = choose(backend, network, device, precision, volume.shape[1:])
    needed = partial(box_bytes, chosen, network.settings, precision)
    budget = int(SHARE * free_bytes(device)) if budget_bytes is None else budget_bytes
    multiple = shape_multiple(network)
    if multiple > 1:
        volume, core = _aligned(volume, core, origin, multiple)
    blocks = plan_blocks(volume.shape[1:], core, halo, needed, budget, multiple)
    largest = max((block.box for block in blocks), key=lambda box: box.size).shape
    logger.info(
        "memory: %d block(s) of up to %s voxels, %s of %s",
        len(blocks), "x".join(map(str, largest)), _gib(needed(largest)), _gib(budget),
    )  # fmt: skip
    result = np.empty((network.settings.outputs, *core.shape), np.float32)
    while blocks:
        block = blocks.pop(0)
        box = np.ascontiguousarray(volume[:, *block.box.slices], dtype=np.float32)
        part = _run_or_none(
            lambda v: chosen.run(network, v, device, precision, threads), box, flip_axes, device
        )
        if part is None:
            limit = needed(block.box.shape) // 2
            cut = partial(_block, halo=halo, window_shape=volume.shape[1:], multiple=multiple)
            blocks = _halved([block, *blocks], cut, needed, limit)
            continue
        kept = part[:, *block.core.relative_to(block.box.start).slices]
        result[:, *block.core.relative_to(core.start).slices] = kept
    return result


def _run_or_none(
    run: Callable, box: np.ndarray, flip_axes: tuple[int, ...], device: str
) -> np.ndarray | None:
    """The mean over flips of what `run` gives, or None if it ran out of memory."""
    try:
        return over_flips(run, box, flip_axes) if flip_axes else run(box)
    except MemoryError as error:
        problem = str(error)
    except RuntimeError as error:
        # torch.OutOfMemoryError on a GPU; on the CPU torch raises a plain RuntimeError.
        if "memory" not in str(error).lower():
            raise
        problem = str(error)
    logger.warning(
        "out of memory with a block of %s voxels (%s): going on with blocks of half the size",
        "x".join(map(str, box.shape[1:])), (problem.strip() or "no details").splitlines()[0],
    )  # fmt: skip
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
    return None


def _halved(
    blocks: list[Block],
    cut: Callable[[Box], Block],
    needed: Callable[[Triple], int],
    limit: int,
) -> list[Block]:
    """Blocks cut at the middle of their longest edge until each needs `limit` bytes at most.

    A halo does not shrink with its block: a block of few voxels may stay above the limit. Halving
    its core is then all that can be done.
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
            smaller += _halved(halves, cut, needed, limit)
        else:
            smaller += halves
    return smaller


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"
