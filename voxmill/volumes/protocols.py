"""What the library asks of a volume: a shape, and boxes of voxels on demand."""

from typing import Any, Protocol

import numpy.typing as npt

from voxmill.geometry import Triple


class ReadableVolume(Protocol):
    """Something with a shape whose boxes can be read: an opened file, an array, a reader.

    `voxmill.volumes.open_volume` gives one for a file, `voxmill.volumes.blocks.ArrayVolume` for an
    array in memory.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along z, y, x."""

    def read_window(self, start: Triple, stop: Triple) -> npt.NDArray[Any]:
        """Voxels (z, y, x) from `start` up to, not including, `stop`, in the volume's dtype."""
