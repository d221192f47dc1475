"""A volume of coarser or finer voxels, seen in the voxels of the file that it was made from."""

from typing import Any

import numpy as np
import numpy.typing as npt

from voxmill.geometry import Resampling, Triple
from voxmill.volumes.protocols import ReadableVolume


class InOwnVoxels:
    """A `ReadableVolume` in a file's voxels: each has the value of the voxel that it lies in.

    For labels, which have no values between.

    Parameters
    ----------
    volume : ReadableVolume
        In the voxels that networks see.
    grid : Resampling
        Of these and of the file.
    """

    def __init__(self, volume: ReadableVolume, grid: Resampling) -> None:
        self._volume, self._factors = volume, grid.factors
        self.shape = grid.own_shape

    def read_window(self, start: Triple, stop: Triple) -> npt.NDArray[Any]:
        """Voxels from `start` up to, not including, `stop`, in the file's voxels."""
        places = [
            np.minimum(((np.arange(a, b) + 0.5) / factor).astype(np.int64), n - 1)
            for a, b, factor, n in zip(start, stop, self._factors, self._volume.shape, strict=True)
        ]
        z, y, x = (int(along[0]) for along in places)
        depth, height, width = (int(along[-1]) + 1 for along in places)
        window = self._volume.read_window((z, y, x), (depth, height, width))
        return window[np.ix_(*(along - along[0] for along in places))]
