"""Blocks to a device and back: on a GPU, copies overlap with computing.

A GPU computes a block while the next one is copied to it and the last one from it. Only the wanted
part of a block's result is copied back, into memory that has been touched before: the system hands
out fresh pages more slowly than that. Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from voxmill.engine.backend import Backend
from voxmill.engine.gpu import on_device
from voxmill.engine.transfer import lanes
from voxmill.networks.stored import Network
from voxmill.prediction.blocks import Block
from voxmill.prediction.flips import over_flips
from voxmill.runtime.jobs import overlapped

if TYPE_CHECKING:
    import torch

_PAGE_NUMBERS = 1024

Evaluate = Callable[[Any], Any]


class Runner(Protocol):
    """Evaluates blocks; `done` counts those that need not be computed again."""

    done: int

    def send(self, volume: np.ndarray, block: Block) -> None:
        """Have the block that is run first on the device, where there is one."""
        ...

    def run(self, volume: np.ndarray, blocks: Sequence[Block]) -> None:
        """Put the probabilities of all blocks' cores into the result, in order.

        The volume is the window, (inputs, z, y, x) float32. What the last block gave may stay on
        the device until `fetch`.
        """
        ...

    def fetch(self) -> None:
        """Have the whole result in place."""
        ...


class HostRunner:
    """Blocks one after another, where the host computes.

    Parameters
    ----------
    evaluate : callable
        (inputs, z, y, x) float32 array -> (outputs, z, y, x) probabilities.
    result : (outputs, z, y, x) float32 array
        The window's core; `origin` is where it starts in the window.
    """

    def __init__(self, evaluate: Evaluate, result: np.ndarray, origin: Sequence[int]) -> None:
        self.evaluate, self.result, self.origin = evaluate, result, origin
        self.done = 0

    def send(self, volume: np.ndarray, block: Block) -> None:
        """See `Runner`; there is nowhere to send to."""

    def fetch(self) -> None:
        """See `Runner`; `run` leaves nothing elsewhere."""

    def run(self, volume: np.ndarray, blocks: Sequence[Block]) -> None:
        """See `Runner`."""
        for block in blocks:
            found = self.evaluate(
                np.ascontiguousarray(volume[:, *block.box.slices], dtype=np.float32)
            )
            kept = found[:, *block.core.relative_to(block.box.start).slices]
            self.result[:, *block.core.relative_to(self.origin).slices] = kept
            self.done += 1


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


class DeviceRunner:
    """Blocks on a device: one is computed, while the next goes there and the last comes back.

    Parameters
    ----------
    device : Device
    result, origin
        As of `HostRunner`.
    """

    def __init__(self, device: Device, result: np.ndarray, origin: Sequence[int]) -> None:
        self.device, self.result, self.origin = device, result, origin
        self.done = 0
        self._sent: dict[Block, Any] = {}
        self._computed: tuple[Block, Any] | None = None

    def send(self, volume: np.ndarray, block: Block) -> None:
        """See `Runner`."""
        self._sent[block] = self.device.upload(volume[:, *block.box.slices])

    def run(self, volume: np.ndarray, blocks: Sequence[Block]) -> None:
        """See `Runner`."""
        with ThreadPoolExecutor(1) as pool:
            # While the first block is on its way; a second run finds the pages there.
            touched = pool.submit(touch, self.result) if not self.done else None

            def upload(block: Block) -> Any:
                if block in self._sent:
                    return self._sent.pop(block)
                return self.device.upload(volume[:, *block.box.slices])

            def compute(block: Block, given: Any) -> Any:
                core = block.core.relative_to(block.box.start).slices
                return self.device.compute(given, core)

            def download(block: Block, found: Any) -> None:
                if touched is not None:
                    touched.result()
                self._computed = block, found
                if block is not blocks[-1]:
                    self.fetch()
                self.done += 1

            overlapped(blocks, upload, compute, download)

    def fetch(self) -> None:
        """See `Runner`."""
        if self._computed is not None:
            block, found = self._computed
            core = block.core.relative_to(self.origin).slices
            self.device.download(found, self.result[:, *core])
            self._computed = None


def touch(array: np.ndarray) -> None:
    """Let the system provide all pages of a new array; its content is lost."""
    array.reshape(-1)[::_PAGE_NUMBERS] = 0.0


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

    def upload(self, source: np.ndarray) -> torch.Tensor:
        """See `Device`."""
        return self._up.to_device(source)

    def compute(self, given: torch.Tensor, core: tuple[slice, ...]) -> torch.Tensor:
        """See `Device`."""
        import torch

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
        return self.backend.logits(self.network, volume, self.precision).sigmoid_()

    def download(self, found: torch.Tensor, target: np.ndarray) -> None:
        """See `Device`."""
        self._down.to_host(found, target)
