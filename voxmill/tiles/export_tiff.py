"""Write an image of probabilities or labels as one OME-TIFF, for programs without OME-Zarr."""

import math
import time
from pathlib import Path

from voxmill.runtime.jobs import job, log_rate
from voxmill.volumes import LABEL_DTYPES, open_volume, read_header
from voxmill.volumes.ome_tiff import write_pyramid
from voxmill.volumes.probability import open_stored


@job(outputs=("output_path",))
def export_tiff(*, image_path: str, output_path: str, how: str = "mean") -> None:
    """Write a tiled OME-BigTIFF with a pyramid of each plane, compressed without loss.

    Parameters
    ----------
    image_path : path
        The image, or its `zarr.json`.
    output_path : path
        The stored values in their type; float16 becomes float32, as OME-TIFF has no such type.
    how : str
        How levels are reduced: "mean" for probabilities, "mode" for labels.

    Raises
    ------
    VoxmillError
        If the image can't be read.
    """
    start = time.perf_counter()
    path = Path(image_path)
    folder = path.parent if path.name == "zarr.json" else path
    labels = how == "mode"
    opened = open_volume(read_header(folder, dtypes=LABEL_DTYPES)) if labels else open_stored(path)
    with opened as volume:
        write_pyramid(output_path, volume, volume.header.voxel_size_um, how)
        log_rate("written", math.prod(volume.shape), time.perf_counter() - start)
