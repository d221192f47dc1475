"""Write a probability image as one OME-TIFF, for programs that read no OME-Zarr."""

import math
import time

from voxmill.runtime.jobs import job, log_rate
from voxmill.volumes.ome_tiff import write_pyramid
from voxmill.volumes.probability import open_stored


@job(outputs=("output_path",))
def export_tiff(*, probability_path: str, output_path: str) -> None:
    """Write a tiled OME-BigTIFF with a pyramid of each plane, compressed without loss.

    Parameters
    ----------
    probability_path : path
        The image, or its `zarr.json`.
    output_path : path
        The stored values in their type; float16 becomes float32, as OME-TIFF has no such type.

    Raises
    ------
    VoxmillError
        If the image can't be read.
    """
    start = time.perf_counter()
    with open_stored(probability_path) as volume:
        write_pyramid(output_path, volume, volume.header.voxel_size_um)
        log_rate("written", math.prod(volume.shape), time.perf_counter() - start)
