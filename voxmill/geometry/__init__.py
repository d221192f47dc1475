"""Geometry without volumes, files or networks: boxes of voxels and the size of a voxel.

`Box` is a half-open box of voxels, `VoxelSize` the edge lengths of a voxel in micrometres,
`Resampling` a second grid over a volume, of another voxel size; all axes are in the order z, y, x.
Volumes read boxes, tiles and cells are made of them: this package lies below all of them and
imports nothing of voxmill but its error.
"""

from voxmill.geometry.box import Box, Triple, three
from voxmill.geometry.resampling import Resampling
from voxmill.geometry.voxel_size import VoxelSize

__all__ = ["Box", "Resampling", "Triple", "VoxelSize", "three"]
