"""Block by block over a volume that may be larger than memory.

Blocks are a matter of memory only: whatever uses them gives the same result for any block size.
`voxmill.geometry.Box.blocks` cuts a volume into them.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy.typing as npt

from voxmill.geometry import Box, Triple
from voxmill.runtime.jobs import progress
from voxmill.volumes.protocols import ReadableVolume

Result = TypeVar("Result")


@dataclass(frozen=True)
class ArrayVolume:
    """An array in memory as a `ReadableVolume`.

    Parameters
    ----------
    array : (z, y, x) array
    """

    array: npt.NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along z, y, x."""
        return self.array.shape

    def read_window(self, start: Triple, stop: Triple) -> npt.NDArray[Any]:
        """Voxels from `start` up to, not including, `stop`; a view of the array."""
        return self.array[Box(start, stop).slices]


class SerialReader:
    """A volume read by one thread at a time, as a file handle has one position."""

    def __init__(self, volume: ReadableVolume) -> None:
        self._volume = volume
        self._lock = threading.Lock()
        self.shape = tuple(int(n) for n in volume.shape)

    def read_window(self, start: Triple, stop: Triple) -> npt.NDArray[Any]:
        """Voxels from `start` up to, not including, `stop`, in the volume's dtype."""
        with self._lock:
            return self._volume.read_window(start, stop)


def map_blocks(
    work: Callable[[Box], Result], blocks: Sequence[Box], threads: int, description: str
) -> Iterator[Result]:
    """Yield `work(block)` for every block, in order, with a progress bar.

    At most `threads` blocks are in memory at once. After an error no further block is begun.

    Parameters
    ----------
    work : callable
    blocks : sequence of Box
    threads : int
        Blocks worked on at once.
    description : str
        What is being done, for the bar and the log.
    """
    executor = ThreadPoolExecutor(max_workers=threads)
    try:
        results = executor.map(work, blocks)
        yield from progress(results, len(blocks), "block", description)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
