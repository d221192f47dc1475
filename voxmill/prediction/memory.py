"""Memory planned before it is used: the blocks of a tile that fit, and what to do if one doesn't.

Importing this module does not import torch.
"""

import gc
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np

from voxmill.engine.backend import Backend, Shape
from voxmill.engine.backends import choose
from voxmill.geometry import Box, Triple
from voxmill.prediction.blocks import Block, block_around, gib, halved, plan_blocks
from voxmill.prediction.flips import over_flips
from voxmill.prediction.streams import Device, GpuDevice, HostDevice, Tile, stream
from voxmill.runtime.free_memory import free_bytes, is_out_of_memory
from voxmill.runtime.jobs import ahead

logger = logging.getLogger(__name__)

# The share of the free memory that blocks may use: the rest is for other data of the job.
SHARE = 0.85


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


def box_bytes(
    backend: Any, settings: Any, precision: str, box_shape: Shape, device: str = "cpu"
) -> int:
    """Peak bytes of a box: what the backend needs for it, and the copies beside it.

    On a CPU these are its voxels; on a GPU those of the next box, which arrives meanwhile, and the
    result of the last one, which leaves.
    """
    on_gpu = device.startswith("cuda")
    copies = settings.inputs + (settings.outputs if on_gpu else 0)
    needed: int = backend.predict_bytes(settings, box_shape, precision, device)
    return needed + 4 * copies * int(np.prod(box_shape))


@dataclass(frozen=True)
class Window:
    """A tile with its halo.

    Parameters
    ----------
    name : str
    voxels : (inputs, z, y, x) float32 array
        Normalised.
    core : Box
        The tile's core in `voxels`.
    origin : (3,) int
        The first voxel of the window in the whole volume, so that a network that pools puts the
        same voxels together in every tile.
    """

    name: str
    voxels: np.ndarray
    core: Box
    origin: Triple = (0, 0, 0)


@dataclass
class BlockedTile(Tile):
    """A tile whose blocks may be halved.

    Parameters
    ----------
    name : str
    needed : callable
        Box shape -> bytes.
    cut : callable
        Core -> block.
    seconds : float
        Of computing.
    """

    name: str
    needed: Callable[[Triple], int]
    cut: Callable[[Box], Block]
    seconds: float = 0.0


@dataclass
class BlockPredictor:
    """A network that evaluates tiles, in the largest blocks that fit the memory.

    If a block runs out of memory all the same, it and those after it are halved, and the log warns.
    A GPU tries once more at the same size first: its memory may only have been in small pieces.

    Parameters
    ----------
    network : torch module
    halo : (3,) int
        Halo of each block.
    backend, device, precision, threads
        See `voxmill.engine.backends.forward`.
    budget_bytes : int, optional
        Default: a share of the memory that is free when the first tile has been read.
    flip_axes : tuple of int
        Test-time augmentation, see `voxmill.prediction.flips`.
    """

    network: Any
    halo: Triple
    backend: str = "auto"
    device: str = "cpu"
    precision: str = "float32"
    threads: int = 1
    budget_bytes: int | None = None
    flip_axes: tuple[int, ...] = ()
    # Bytes of a block, once one has run out of memory.
    _limit: int = field(default=2**63, init=False)
    _chosen: Backend | None = field(default=None, init=False)

    @property
    def _on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    @cached_property
    def _budget(self) -> int:
        """Asked for once, while nothing is computed yet."""
        if self.budget_bytes is not None:
            return self.budget_bytes
        return int(SHARE * free_bytes(self.device))

    def run(self, windows: Iterable[Window], finish: Callable[[BlockedTile], object]) -> None:
        """Evaluate tiles in order; while one is computed, the next one is read.

        Parameters
        ----------
        windows : iterable of Window
            A thread takes them; with a GPU, one ahead of the one that is copied there.
        finish : callable
            Called with each tile when its result is whole, in a thread.

        Raises
        ------
        VoxmillError
            If no block fits, or as `voxmill.engine.backends.choose`.
        """
        with ahead(windows) if self._on_gpu else nullcontext(windows) as taken:
            stream(map(self._planned, taken), self._compute, finish)

    def _planned(self, window: Window) -> tuple[BlockedTile, np.ndarray]:
        """A tile in blocks, and its voxels in the blocks' coordinates."""
        volume, core, multiple = window.voxels, window.core, shape_multiple(self.network)
        backend = self._backend(volume.shape[1:])
        needed = partial(
            box_bytes, backend, self.network.settings, self.precision, device=self.device
        )
        if multiple > 1:
            volume, core = _aligned(volume, core, window.origin, multiple)
        shape: Triple = volume.shape[1:]
        blocks = plan_blocks(shape, core, self.halo, needed, self._budget, multiple)
        largest = max((block.box for block in blocks), key=lambda box: box.size).shape
        logger.info(
            "memory: %d block(s) of up to %s voxels, %s of %s",
            len(blocks), "x".join(map(str, largest)), gib(needed(largest)), gib(self._budget),
        )  # fmt: skip
        result = np.empty((self.network.settings.outputs, *core.shape), np.float32)
        cut = partial(block_around, halo=self.halo, window_shape=shape, multiple=multiple)
        there = self._device(backend)
        return BlockedTile(there, blocks, core, result, window.name, needed, cut), volume

    def _backend(self, shape: Shape) -> Backend:
        """On a GPU that of the first tile: a choice needs the device for itself."""
        if self._chosen is None or not self._on_gpu:
            self._chosen = choose(self.backend, self.network, self.device, self.precision, shape)
        return self._chosen

    def _device(self, backend: Backend) -> Device:
        if self._on_gpu:
            return GpuDevice(backend, self.network, self.device, self.precision, self.flip_axes)

        def run(box: np.ndarray) -> np.ndarray:
            return backend.run(self.network, box, self.device, self.precision, self.threads)

        return HostDevice(partial(over_flips, run, axes=self.flip_axes) if self.flip_axes else run)

    def _compute(self, tile: BlockedTile, block: Block, given: Any) -> list[tuple[Box, Any]]:
        start = time.perf_counter()
        size = tile.needed(block.box.shape)
        parts = self._halves(tile, block) if size > self._limit else [block]
        found = []
        while parts:
            part = parts.pop(0)
            box, core = part.box.relative_to(block.box.start), part.core.relative_to(part.box.start)
            for again in (True, False) if self._on_gpu else (False,):
                kept = _unless_short(tile.device.compute, given[:, *box.slices], core.slices)
                if kept is not None:
                    found.append((part.core, kept))
                    break
                _make_room(part, self.device, again)
            else:
                self._limit = tile.needed(part.box.shape) // 2
                parts = [half for p in (part, *parts) for half in self._halves(tile, p)]
        tile.seconds += time.perf_counter() - start
        return found

    def _halves(self, tile: BlockedTile, block: Block) -> list[Block]:
        return halved([block], tile.cut, tile.needed, self._limit)


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
    """Probabilities of one tile's core; see `BlockPredictor`, whose errors these are.

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
    found: list[np.ndarray] = []
    predictor = BlockPredictor(
        network, halo, backend, device, precision, threads, budget_bytes, flip_axes
    )
    windows = [Window("box", volume, core, origin)]
    predictor.run(windows, lambda tile: found.append(tile.result))
    return found[0]


def _unless_short(
    compute: Callable[[Any, tuple[slice, ...]], Any], given: Any, core: tuple[slice, ...]
) -> Any:
    """What is computed, or None if memory was short."""
    try:
        return compute(given, core)
    except (MemoryError, RuntimeError) as error:
        # torch.OutOfMemoryError on a GPU; on the CPU torch raises a plain RuntimeError.
        if not is_out_of_memory(error):
            raise
        problem = (str(error).strip() or "no details").splitlines()[0]
        logger.warning("out of memory: %s", problem)
        return None


def _make_room(block: Block, device: str, again: bool) -> None:
    """Say what comes next, and free the memory that the failed try still holds."""
    logger.warning(
        "out of memory with a block of %s voxels: %s",
        "x".join(map(str, block.box.shape)),
        "once more at the same size" if again else "going on with blocks of half the size",
    )
    # The traceback of an error and its frames hold each other, and with them tensors.
    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
