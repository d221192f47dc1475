"""Memory planned before it is used: the blocks of a tile that fit, and what to do if one doesn't.

Importing this module does not import torch.
"""

import gc
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from voxmill.engine.backend import Backend, Shape
from voxmill.engine.backends import choose
from voxmill.geometry import Box, Triple
from voxmill.prediction.blocks import Block, block_around, gib, halved, plan_blocks
from voxmill.prediction.flips import over_flips
from voxmill.prediction.streams import DeviceRunner, GpuDevice, HostRunner, Runner
from voxmill.runtime.free_memory import free_bytes, is_out_of_memory

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


def budget_of(device: str) -> int:
    """Bytes that blocks may use on a device, of those that are free now."""
    return int(SHARE * free_bytes(device))


def box_bytes(
    backend: Any, settings: Any, precision: str, box_shape: Shape, device: str = "cpu"
) -> int:
    """Peak bytes of a box: what the backend needs for it, and the copies beside it.

    On a CPU these are its voxels; on a GPU those of the next box and of the next tile's first one,
    which arrive meanwhile, and the result of the last one, which leaves.
    """
    on_gpu = device.startswith("cuda")
    copies = 2 * settings.inputs + settings.outputs if on_gpu else settings.inputs
    needed: int = backend.predict_bytes(settings, box_shape, precision, device)
    return needed + 4 * copies * int(np.prod(box_shape))


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
    A GPU tries once more at the same size first: its memory may only have been in small pieces.

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
    tile = InBlocks(
        network, volume, core, halo, backend, device, precision, threads, budget_bytes, flip_axes,
        origin,
    )  # fmt: skip
    tile.compute()
    return tile.result()


class InBlocks:
    """A tile in the largest blocks that fit the memory; arguments as of `predict_in_blocks`.

    Sending, computing and fetching may each run beside another part of another tile, so that a
    device need not wait for the copies of a tile that is one block.

    Raises
    ------
    VoxmillError
        If no block fits, or as `choose`.
    """

    def __init__(
        self,
        network: Any,
        volume: np.ndarray,
        core: Box,
        halo: Triple,
        backend: str,
        device: str,
        precision: str,
        threads: int,
        budget_bytes: int | None,
        flip_axes: tuple[int, ...],
        origin: Triple,
    ) -> None:
        self._device = device
        chosen = choose(backend, network, device, precision, volume.shape[1:], budget_bytes)
        self._needed = partial(box_bytes, chosen, network.settings, precision, device=device)
        budget = budget_of(device) if budget_bytes is None else budget_bytes
        multiple = shape_multiple(network)
        if multiple > 1:
            volume, core = _aligned(volume, core, origin, multiple)
        window = volume.shape[1:]
        self._cut = partial(block_around, halo=halo, window_shape=window, multiple=multiple)
        self._blocks = plan_blocks(window, core, halo, self._needed, budget, multiple)
        largest = max((block.box for block in self._blocks), key=lambda box: box.size).shape
        logger.info(
            "memory: %d block(s) of up to %s voxels, %s of %s",
            len(self._blocks), "x".join(map(str, largest)), gib(self._needed(largest)), gib(budget),
        )  # fmt: skip
        self._volume = volume
        self._result = np.empty((network.settings.outputs, *core.shape), np.float32)
        self._runner = _runner(
            chosen, network, device, precision, threads, flip_axes, self._result, core
        )

    def send(self) -> None:
        """Copy the first block to the device, if there is room beside what is computed there."""
        try:
            self._runner.send(self._volume, self._blocks[0])
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            logger.info("the first block waits for memory")

    def compute(self) -> None:
        """Compute all blocks; the result of the last one may still be on the device."""
        blocks, again, done = self._blocks, False, 0
        while blocks := _left_of(self._volume, blocks, self._runner):
            again = (self._runner.done > done or not again) and self._device.startswith("cuda")
            done = self._runner.done
            _make_room(blocks[0], self._device, again)
            if not again:
                limit = self._needed(blocks[0].box.shape) // 2
                blocks = halved(blocks, self._cut, self._needed, limit)
        self._volume = np.empty((0, 0, 0, 0), np.float32)  # the memory is for the next tile

    def result(self) -> np.ndarray:
        """Probabilities of the core, (outputs, z, y, x) float32, once they are computed."""
        self._runner.fetch()
        return self._result


def _runner(
    backend: Backend,
    network: Any,
    device: str,
    precision: str,
    threads: int,
    flip_axes: tuple[int, ...],
    result: np.ndarray,
    core: Box,
) -> Runner:
    """What evaluates blocks on the device, and puts their cores into `result`."""
    if device.startswith("cuda"):
        there = GpuDevice(backend, network, device, precision, flip_axes)
        return DeviceRunner(there, result, core.start)

    def run(box: np.ndarray) -> np.ndarray:
        return backend.run(network, box, device, precision, threads)

    evaluate = partial(over_flips, run, axes=flip_axes) if flip_axes else run
    return HostRunner(evaluate, result, core.start)


def _left_of(volume: np.ndarray, blocks: Sequence[Block], runner: Runner) -> list[Block]:
    """Run blocks; returns those that are left when one ran out of memory."""
    before = runner.done
    try:
        runner.run(volume, blocks)
    except (MemoryError, RuntimeError) as error:
        # torch.OutOfMemoryError on a GPU; on the CPU torch raises a plain RuntimeError.
        if not is_out_of_memory(error):
            raise
        problem = (str(error).strip() or "no details").splitlines()[0]
        logger.warning("out of memory: %s", problem)
    return list(blocks[runner.done - before :])


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
