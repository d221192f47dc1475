"""No voxel may be NaN or infinite."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from voxmill.runtime.errors import VoxmillError


def check_finite(array: np.ndarray, path: str | Path, origin: Sequence[int] = (0, 0, 0)) -> None:
    """Refuse NaN and infinite voxels.

    Parameters
    ----------
    array : (z, y, x) array
    path : path
        The volume's file, for the message.
    origin : (3,) ints
        Position of the array's first voxel in the volume.

    Raises
    ------
    VoxmillError
        If there are any: their number and the position of the first in the volume.
    """
    if array.dtype.kind != "f":
        return
    count, first = 0, (0, 0, 0)
    for z, plane in enumerate(array):
        bad = ~np.isfinite(plane)
        here = int(bad.sum())
        if here and not count:
            y, x = np.unravel_index(int(bad.argmax()), plane.shape)
            first = (z, int(y), int(x))
        count += here
    if count:
        voxel = tuple(int(a + b) for a, b in zip(origin, first, strict=True))
        raise VoxmillError(
            f"{path}: expected finite voxels, found {count} that are NaN or infinite, the first "
            f"at (z, y, x) = {voxel}. Replace them, for example with `numpy.nan_to_num`."
        )
