"""Copies between the host and a GPU, in streams of their own and through pinned memory.

A copy goes through two pinned buffers in turn: the host fills or empties one of them while the
other one is in flight. Importing this module does not import torch.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

# float32: 16 MiB for each of four buffers. Small blocks are several pieces, which overlap, and two
# buffers stay in the processor's cache.
BUFFER_NUMBERS = 2**22


def pieces(shape: Sequence[int], most: int) -> Iterator[tuple[slice, ...]]:
    """Parts of an array (channel, z, y, x) that are contiguous, of about `most` numbers at most.

    A row along x is never cut.

    >>> [[f"{s.start}:{s.stop}" for s in part] for part in pieces((1, 3, 4, 2), 16)]
    [['0:1', '0:2', '0:4', '0:2'], ['0:1', '2:3', '0:4', '0:2']]
    """
    channels, z, y, x = shape
    rows = min(y, max(1, most // x))
    planes = max(1, most // (x * y))
    starts = itertools.product(range(channels), range(0, z, planes), range(0, y, rows))
    for channel, top, row in starts:
        yield (
            slice(channel, channel + 1),
            slice(top, min(top + planes, z)),
            slice(row, min(row + rows, y)),
            slice(0, x),
        )


class Cuda:
    """The calls to CUDA that a copy needs: a stream, pinned memory and events.

    Parameters
    ----------
    device : str
    """

    def __init__(self, device: str) -> None:
        import torch

        self.device = device
        self._stream = torch.cuda.Stream(device)
        # No other thread uses this stream; blocking events let the thread sleep.
        self._event: Callable[[], Any] = functools.partial(torch.cuda.Event, blocking=True)

    def pinned(self, numbers: int) -> torch.Tensor:
        """A buffer on the host that the device reads and writes by itself."""
        import torch

        return torch.empty(numbers, pin_memory=True)

    def empty(self, shape: Sequence[int]) -> torch.Tensor:
        """Float32 memory of the device, never one that kernels of other streams still use."""
        import torch

        with torch.cuda.stream(self._stream):
            return torch.empty(tuple(shape), device=self.device)

    def copy(self, to: torch.Tensor, source: torch.Tensor) -> Any:
        """Start a copy in the stream; returns what `wait` waits for."""
        import torch

        with torch.cuda.stream(self._stream):
            to.copy_(source, non_blocking=True)
            event = self._event()
            event.record(self._stream)
        return event

    def wait(self, event: Any) -> None:
        """Wait until a copy has ended."""
        event.synchronize()


class Lane:
    """One direction of copies, through two pinned buffers that are used again and again.

    Parameters
    ----------
    cuda : Cuda
    """

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        self._held = threading.Lock()  # two tiles may be on their way at once
        self._buffers: list[torch.Tensor] = []

    def _buffer(self, number: int, shape: Sequence[int]) -> torch.Tensor:
        size = int(np.prod(shape))
        while len(self._buffers) < 2:
            self._buffers.append(self.cuda.pinned(BUFFER_NUMBERS))
        if self._buffers[number].numel() < size:  # one row is longer than a buffer
            self._buffers[number] = self.cuda.pinned(size)
        return self._buffers[number][:size].view(*shape)

    def to_device(self, source: np.ndarray) -> torch.Tensor:
        """A float32 array as a tensor on the device."""
        with self._held:
            return self._to_device(source)

    def _to_device(self, source: np.ndarray) -> torch.Tensor:
        target = self.cuda.empty(source.shape)
        flying: list[Any] = []
        for number, part in enumerate(pieces(source.shape, BUFFER_NUMBERS)):
            if len(flying) == 2:
                self.cuda.wait(flying.pop(0))
            buffer = self._buffer(number % 2, source[part].shape)
            np.copyto(buffer.numpy(), source[part])
            flying.append(self.cuda.copy(target[part], buffer))
        for event in flying:
            self.cuda.wait(event)
        return target

    def to_host(self, source: torch.Tensor, target: np.ndarray) -> None:
        """Copy a contiguous float32 tensor on the device into an array."""
        with self._held:
            self._to_host(source, target)

    def _to_host(self, source: torch.Tensor, target: np.ndarray) -> None:
        flying: list[tuple[Any, tuple[slice, ...], torch.Tensor]] = []

        def land() -> None:
            event, part, buffer = flying.pop(0)
            self.cuda.wait(event)
            np.copyto(target[part], buffer.numpy())

        for number, part in enumerate(pieces(source.shape, BUFFER_NUMBERS)):
            if len(flying) == 2:
                land()
            buffer = self._buffer(number % 2, source[part].shape)
            flying.append((self.cuda.copy(buffer, source[part]), part, buffer))
        while flying:
            land()


@functools.cache
def lanes(device: str) -> tuple[Lane, Lane]:
    """The lanes to and from a GPU; their buffers serve all tiles of the process."""
    return Lane(Cuda(device)), Lane(Cuda(device))
