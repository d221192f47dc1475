"""Blocks of tiles to a device and back: on a GPU, copies overlap with computing.

A GPU computes a block while the next one is copied to it and the last one from it, be they of one
tile or of two. Only the wanted part of a block's result is copied back, into memory that has been
touched before: the system hands out fresh pages more slowly than that. Importing this module does
not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from voxmill.engine.backend import Backend
from voxmill.engine.gpu import on_device
from voxmill.engine.transfer import lanes
from voxmill.geometry import Box
from voxmill.networks.stored import Network
from voxmill.prediction.blocks import Block
from voxmill.prediction.flips import over_flips
from voxmill.runtime.free_memory import is_out_of_memory
from voxmill.runtime.jobs import ahead, behind

if TYPE_CHECKING:
    import torch

_PAGE_NUMBERS = 1024


class Device(Protocol):
    """Where blocks are computed; tests and benchmarks put a made-up one in its place."""

    def upload(self, source: np.ndarray) -> Any:
        """Copy an array to the device; returns when it is there."""
        ...

    def compute(self, given: Any, core: tuple[slice, ...]) -> Any:
        """Probabilities of a part of what was uploaded; returns when they are computed."""
        ...

    def download(self, found: Any, target: np.ndarray) -> None:
        """Copy a result to an array; returns when it is there."""
        ...


@dataclass
class Tile:
    """A tile on its way through a device.

    Parameters
    ----------
    device : Device
    blocks : sequence of Block
        In the coordinates of the tile's window.
    core : Box
        The tile's core in its window, which the blocks' cores partition.
    result : (outputs, z, y, x) float32 array
        Of the core; its content is lost.
    """

    device: Device
    blocks: Sequence[Block]
    core: Box
    result: np.ndarray

    def part(self, core: Box) -> np.ndarray:
        """Where the probabilities of a block's core belong."""
        return self.result[:, *core.relative_to(self.core.start).slices]


AnyTile = TypeVar("AnyTile", bound=Tile)
Parts = Sequence[tuple[Box, Any]]


def stream(
    tiles: Iterable[tuple[AnyTile, np.ndarray]],
    compute: Callable[[AnyTile, Block, Any], Parts],
    finish: Callable[[AnyTile], object],
) -> None:
    """Put the probabilities of tiles into their results: one block is computed at a time.

    Meanwhile the next one goes to the device and the last one comes back. At most two boxes are on
    the device, and the results of two.

    Parameters
    ----------
    tiles : iterable of (Tile, (inputs, z, y, x) float32 array)
        With their windows, which are let go when their last block is on the device. A thread takes
        them, when a tile's turn has come.
    compute : callable
        Tile, block and what was uploaded of it -> parts of the block's core, in the coordinates of
        the window, and their probabilities on the device.
    finish : callable
        Called with each tile when its result is whole, in a thread.

    Raises
    ------
    Exception
        The first one of any of these functions. The tiles before are finished.
    """
    touched: dict[int, Future[None]] = {}

    def boxes() -> Iterator[tuple[AnyTile, Block, Any]]:
        for tile, window in tiles:
            for block in tile.blocks:
                yield tile, block, tile.device.upload(window[:, *block.box.slices])
            del window  # before the next one is read

    def bring(tile: AnyTile, block: Block, parts: Parts) -> None:
        if block is tile.blocks[0]:
            touched.pop(id(tile)).result()
        for core, found in parts:
            tile.device.download(found, tile.part(core))
        if block is tile.blocks[-1]:
            finish(tile)

    with ThreadPoolExecutor(1) as toucher, behind(bring) as put, ahead(boxes()) as arrived:
        for tile, block, given in arrived:
            if block is tile.blocks[0]:
                touched[id(tile)] = toucher.submit(touch, tile.result)
            parts = compute(tile, block, given)
            del given  # before the next but one is uploaded
            put(tile, block, parts)
            del parts


def touch(array: np.ndarray) -> None:
    """Let the system provide all pages of a new array; its content is lost."""
    array.reshape(-1)[::_PAGE_NUMBERS] = 0.0


class HostDevice:
    """A network where the host computes; nothing is copied to it.

    Parameters
    ----------
    evaluate : callable
        (inputs, z, y, x) float32 array -> (outputs, z, y, x) probabilities.
    """

    def __init__(self, evaluate: Callable[[Any], Any]) -> None:
        self.evaluate = evaluate

    def upload(self, source: np.ndarray) -> np.ndarray:
        """See `Device`."""
        return source

    def compute(self, given: np.ndarray, core: tuple[slice, ...]) -> np.ndarray:
        """See `Device`."""
        found: np.ndarray = self.evaluate(np.ascontiguousarray(given, dtype=np.float32))
        return found[:, *core]

    def download(self, found: np.ndarray, target: np.ndarray) -> None:
        """See `Device`."""
        target[...] = found


class GpuDevice:
    """A network on a GPU.

    Parameters
    ----------
    backend : Backend
    network : torch module or StoredNetwork
    device, precision : str
    flip_axes : tuple of int
        See `voxmill.prediction.flips`; mirrored on the device.
    """

    def __init__(
        self,
        backend: Backend,
        network: Network,
        device: str,
        precision: str,
        flip_axes: tuple[int, ...] = (),
    ) -> None:
        self.backend, self.network = backend, network
        self.precision, self.flip_axes = precision, flip_axes
        self._up, self._down = lanes(device)

    def upload(self, source: np.ndarray) -> torch.Tensor | np.ndarray:
        """See `Device`; without memory beside the present block, the box waits on the host."""
        try:
            return self._up.to_device(source)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return source

    def compute(self, given: torch.Tensor | np.ndarray, core: tuple[slice, ...]) -> torch.Tensor:
        """See `Device`."""
        import torch

        if isinstance(given, np.ndarray):
            given = self._up.to_device(given)
        with on_device(str(given.device)):
            probability = (
                over_flips(self._evaluate, given, self.flip_axes)
                if self.flip_axes
                else self._evaluate(given)
            )
            # A copy of the core alone, so that the box is free for the next block.
            kept: torch.Tensor = probability[:, *core].contiguous()
            if given.is_cuda:
                torch.cuda.current_stream(given.device).synchronize()
        return kept

    def _evaluate(self, volume: torch.Tensor) -> torch.Tensor:
        # Half of a block that was too large is a view.
        found = self.backend.logits(self.network, volume.contiguous(), self.precision)
        return found.sigmoid_()

    def download(self, found: torch.Tensor, target: np.ndarray) -> None:
        """See `Device`."""
        self._down.to_host(found, target)
