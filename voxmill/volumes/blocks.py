"""Block by block over a volume that may be larger than memory.

Blocks are a matter of memory only: whatever uses them gives the same result for any block size.
"""

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from voxmill.runtime.jobs import progress

Corner = tuple[int, int, int]


def block_list(shape: Iterable[int], block_vox: int) -> list[tuple[Corner, Corner]]:
    """Start and stop of the blocks that partition a volume, in z, y, x order.

    Parameters
    ----------
    shape : (3,) int
        Volume in voxels.
    block_vox : int
        Edge of a block, voxels; the last of an axis may be smaller.

    Examples
    --------
    >>> block_list((2, 2, 5), 3)
    [((0, 0, 0), (2, 2, 3)), ((0, 0, 3), (2, 2, 5))]
    """
    shape = tuple(int(n) for n in shape)
    starts = itertools.product(*(range(0, n, block_vox) for n in shape))
    return [
        (start, tuple(min(a + block_vox, n) for a, n in zip(start, shape, strict=True)))
        for start in starts
    ]


@dataclass(frozen=True)
class ArrayVolume:
    """An array with the interface of an opened volume."""

    array: np.ndarray

    @property
    def shape(self):
        """Shape z, y, x."""
        return self.array.shape

    def read_window(self, start, stop):
        """Voxels of the half-open box."""
        return self.array[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]


def map_blocks(work: Callable, blocks: list, threads: int, description: str) -> Iterator:
    """Yield `work(start, stop)` for every block, in order, with progress.

    At most `threads` blocks are in memory at once. The first error cancels what has not begun.
    """
    executor = ThreadPoolExecutor(max_workers=threads)
    try:
        results = executor.map(lambda block: work(*block), blocks)
        yield from progress(results, len(blocks), "block", description)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


class SerialReader:
    """A volume read by one thread at a time, as a file handle has one position.

    Parameters
    ----------
    volume
        Object with `shape` (z, y, x) and `read_window(start, stop) -> (·, ·, ·) array`.
    """

    def __init__(self, volume):
        self._volume = volume
        self._lock = threading.Lock()
        self.shape: Corner = tuple(int(n) for n in volume.shape)

    def read_window(self, start, stop) -> np.ndarray:
        """Voxels of the half-open box, in the volume's dtype."""
        with self._lock:
            return self._volume.read_window(start, stop)
