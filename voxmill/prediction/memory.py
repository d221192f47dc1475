"""Memory planned before it is taken: the blocks of a tile that fit, and what to do if one doesn't.

Importing this module does not import torch.
"""

import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from voxmill.engine.backends import choose
from voxmill.prediction.flips import over_flips
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.free_memory import free_bytes
from voxmill.tiles.grid import Triple, grow

logger = logging.getLogger(__name__)

# Of the free memory, what a plan may use: the rest is for other data of the job.
SHARE = 0.85


@dataclass(frozen=True)
class Block:
    """A part of a tile that is evaluated at once; voxels of the tile's window, z, y, x.

    Parameters
    ----------
    core : pair of (3,) int
        Start and stop of what is kept of the result.
    box : pair of (3,) int
        Start and stop of what the network sees: the core and its halo, clipped at the window.
    """

    core: tuple[Triple, Triple]
    box: tuple[Triple, Triple]

    @property
    def box_shape(self) -> Triple:
        """Voxels of the box."""
        return tuple(b - a for a, b in zip(*self.box, strict=True))

    @property
    def core_shape(self) -> Triple:
        """Voxels of the core."""
        return tuple(b - a for a, b in zip(*self.core, strict=True))


def plan_blocks(
    window_shape: Triple,
    core: tuple[Triple, Triple],
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
    core : pair of (3,) int
        Start and stop of the tile's core in the window.
    halo : (3,) int
        Context that each block's core needs, clipped at the window.
    needed : callable
        Box shape -> bytes.
    budget_bytes : int
    multiple : int
        Boxes start and stop at multiples of it, so that a network that pools does so as on the
        whole; the window's edges are multiples too.

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
        blocks = [_block(part, halo, window_shape, multiple) for part in _parts(core, cuts)]
        worst = max(blocks, key=lambda block: np.prod(block.box_shape, dtype=float))
        if needed(worst.box_shape) <= budget_bytes:
            return blocks
        if max(worst.core_shape) == 1:
            raise VoxmillError(
                f"memory: one voxel with its halo of {halo} voxels needs "
                f"{_gib(needed(worst.box_shape))}, there are {_gib(budget_bytes)}. Give the job "
                "more memory or choose a smaller halo."
            )
        cuts[int(np.argmax(worst.core_shape))] += 1


def _parts(core, cuts):
    """Boxes that partition `core`, `cuts[axis]` of them along each axis."""
    edges = [
        [a + (b - a) * i // n for i in range(n + 1)] for a, b, n in zip(*core, cuts, strict=True)
    ]
    for part in itertools.product(*(itertools.pairwise(e) for e in edges)):
        start, stop = zip(*part, strict=True)
        yield start, stop


def _block(core, halo, window_shape, multiple: int) -> Block:
    start, stop = grow(*core, halo, window_shape)
    start = tuple(a // multiple * multiple for a in start)
    return Block(core, (start, tuple(b + -b % multiple for b in stop)))


def shape_multiple(network) -> int:
    """What the edges of a network's boxes must be multiples of."""
    return getattr(network.settings, "shape_multiple", 1)


def _aligned(volume: np.ndarray, core, origin: Triple, multiple: int):
    """The volume padded with zeros so that its place and edges are multiples, and its core."""
    front = [a % multiple for a in origin]
    pads = [(f, -(f + n) % multiple) for f, n in zip(front, volume.shape[1:], strict=True)]
    moved = tuple(tuple(a + f for a, f in zip(side, front, strict=True)) for side in core)
    return np.pad(volume, [(0, 0), *pads]), moved


def box_bytes(backend, settings, precision: str, box_shape: Triple) -> int:
    """Peak bytes of a box: its voxels, and what the backend needs for it."""
    voxels = 4 * settings.inputs * int(np.prod(box_shape))
    return backend.predict_bytes(settings, box_shape, precision) + voxels


def predict_in_blocks(
    network,
    volume: np.ndarray,
    core: tuple[Triple, Triple],
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

    A block that runs out of memory all the same is halved, with those after it, and the log says
    so.

    Parameters
    ----------
    network : torch module
    volume : (inputs, z, y, x) float32 array
        The tile with its halo, normalised.
    core : pair of (3,) int
        Start and stop of the tile's core in the volume.
    halo : (3,) int
        Context of a block.
    backend, device, precision, threads
        See `voxmill.engine.backends.forward`.
    budget_bytes : int, optional
        Default: a share of the free memory.
    flip_axes : tuple of int
        Test-time augmentation, see `voxmill.prediction.flips`.
    origin : (3,) int
        Where the tile's window starts in the whole volume: a network that pools puts the same
        voxels together in every tile.

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
    largest = max((block.box_shape for block in blocks), key=np.prod)
    logger.info(
        "memory: %d block(s) of up to %s voxels, %s of %s",
        len(blocks), "x".join(map(str, largest)), _gib(needed(largest)), _gib(budget),
    )  # fmt: skip
    shape = (network.settings.outputs, *(b - a for a, b in zip(*core, strict=True)))
    result = np.empty(shape, np.float32)
    while blocks:
        block = blocks.pop(0)
        inside = (slice(None), *(slice(a, b) for a, b in zip(*block.box, strict=True)))
        box = np.ascontiguousarray(volume[inside], dtype=np.float32)
        part = _run_or_none(
            lambda v: chosen.run(network, v, device, precision, threads), box, flip_axes, device
        )
        if part is None:
            limit = needed(block.box_shape) // 2
            cut = partial(_block, halo=halo, window_shape=volume.shape[1:], multiple=multiple)
            blocks = _halved([block, *blocks], cut, needed, limit)
            continue
        to = _slices(block.core, core[0])
        result[to] = part[_slices(block.core, block.box[0])]
    return result


def _slices(box, origin):
    return (slice(None), *(slice(a - o, b - o) for a, b, o in zip(*box, origin, strict=True)))


def _run_or_none(run: Callable, box, flip_axes, device: str):
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


def _halved(blocks: list[Block], cut, needed, limit: int) -> list[Block]:
    """Blocks cut at the middle of their longest edge until each needs `limit` bytes at most.

    A halo does not shrink with its block: a block of few voxels may stay above the limit, then
    halving its core is all that can be done.
    """
    smaller = []
    for block in blocks:
        if needed(block.box_shape) <= limit:
            smaller.append(block)
            continue
        if max(block.core_shape) == 1:
            raise VoxmillError(
                f"memory: a block of one voxel with its halo ({block.box_shape} voxels) ran out of "
                "memory. Give the job more memory or choose a smaller halo."
            )
        cuts = [1, 1, 1]
        cuts[int(np.argmax(block.core_shape))] = 2
        halves = [cut(part) for part in _parts(block.core, cuts)]
        if max(needed(half.box_shape) for half in halves) > limit and max(block.core_shape) > 2:
            smaller += _halved(halves, cut, needed, limit)
        else:
            smaller += halves
    return smaller


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"
