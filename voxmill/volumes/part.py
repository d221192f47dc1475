"""A box of an opened volume, as a volume of its own."""

from typing import Any

import numpy.typing as npt

from voxmill.geometry import Box, Triple
from voxmill.volumes.protocols import ReadableVolume


class PartOfVolume:
    """A `ReadableVolume` of a box of another; its voxel 0 is the first of the box.

    Parameters
    ----------
    volume : ReadableVolume
    box : Box
        Inside of the volume.
    """

    def __init__(self, volume: ReadableVolume, box: Box) -> None:
        self._volume, self._start = volume, box.start
        self.shape = box.shape

    def read_window(self, start: Triple, stop: Triple) -> npt.NDArray[Any]:
        """Voxels from `start` up to, not including, `stop`, counted from the box's first voxel."""
        return self._volume.read_window(*Box(start, stop).shifted_by(self._start))
