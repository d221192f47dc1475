"""A volume of any format written as an OME-Zarr with a pyramid, for programs that read no other."""

from itertools import product
from pathlib import Path

import numpy as np

from voxmill.volumes.multiscale import level_arrays, write_image
from voxmill.volumes.pyramid import pyramid_levels, write_row
from voxmill.volumes.windows import Windows

SHARD_VOX = (128, 256, 256)
# Of the coarsest level: a few very bright voxels must not make all others black.
_SHOWN_PERCENTILES = (1.0, 99.9)


def write_copy(path: str | Path, volume: Windows, name: str) -> tuple[float, float]:
    """Write an opened volume; memory is a shard and what a layer of its chunks is made from.

    Parameters
    ----------
    path : path
        The image's folder.
    volume : Windows
    name : str
        Of the image.

    Returns
    -------
    (2,) float
        The darkest and brightest grey value that viewers show.
    """
    size = volume.header.known_voxel_size_um
    z, y, x = volume.shape
    levels = pyramid_levels((z, y, x), size)
    arrays = level_arrays(path, levels, volume.dtype.name, SHARD_VOX, "zstd")
    for index in product(*map(range, arrays[0].shards)):
        z, y, x = index
        arrays[0].write_shard((z, y, x), volume.read_window(*arrays[0].box((z, y, x))))
    for number in range(1, len(levels)):
        for row in range(arrays[number].shards[0]):
            write_row(arrays[number - 1], arrays[number], levels[number], row, "mean")
    coarsest = arrays[-1].read(arrays[-1].box((0, 0, 0)))
    low, high = (float(value) for value in np.percentile(coarsest, _SHOWN_PERCENTILES))
    window = {"min": low, "max": high, "start": low, "end": high}
    write_image(path, arrays, levels, size, name, {"label": name, "window": window}, "mean", {})
    return low, high
