"""Cut a box out of a volume, for a viewer."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from voxmill.geometry import Box
from voxmill.volumes import VolumeHeader, open_volume, write_planes


def crop_volume(header: VolumeHeader, box: Box, output_path: str | Path) -> None:
    """Write a box of a volume as OME-TIFF, one plane in memory.

    Points that are set in it get `offset_vox: box.start` to lie in the volume, and grey values
    should be judged by the whole volume's statistics, not by the crop's.

    Parameters
    ----------
    header : VolumeHeader
    box : Box
        Absolute voxels inside of the volume.
    output_path : path
        Written whole or not at all.

    Raises
    ------
    VoxmillError
        If the volume can't be read.
    """

    def planes() -> Iterator[np.ndarray]:
        with open_volume(header) as volume:
            for z in range(box.start[0], box.stop[0]):
                window = box.with_axis(0, z, z + 1)
                yield volume.read_window(*window)[0]

    write_planes(output_path, planes(), box.shape, header.dtype, header.voxel_size_um)
