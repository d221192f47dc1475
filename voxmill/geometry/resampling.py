"""Two grids of voxels over one volume: that of its file, and one of another voxel size."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

from voxmill.geometry.box import Box, Triple, three
from voxmill.geometry.voxel_size import VoxelSize

# Of a voxel: what two faces may differ by, from rounding alone, and still be one.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Resampling:
    """A volume that is read at another voxel size than its file's.

    The outer faces of the two grids' first voxels are one: in the file's voxels the centre of voxel
    j lies at (j + 1/2) f - 1/2, where f is the new edge over the file's. The last new voxel reaches
    less than half of itself beyond the file's last one, or half of one or less is left out there. A
    place in micrometres is the file's voxel index times its edge, whatever the grid.

    Parameters
    ----------
    own_shape : (3,) int
        The file's voxels, z, y, x.
    own_voxel_size_um : VoxelSize
        The file's, or what the configuration says about the file.
    voxel_size_um : VoxelSize
        The new one.

    Examples
    --------
    Voxels of 1 um along x, read at 2 um: the new voxel 0 lies over 0 and 1.

    >>> grid = Resampling((4, 4, 8), VoxelSize(1, 1, 1), VoxelSize(1, 1, 2))
    >>> grid.shape
    (4, 4, 4)
    >>> grid.to_own([[0, 0, 0], [0, 0, 3]])
    array([[0. , 0. , 0.5],
           [0. , 0. , 6.5]])
    """

    own_shape: Triple
    own_voxel_size_um: VoxelSize
    voxel_size_um: VoxelSize

    @classmethod
    def between(
        cls,
        own_shape: Triple | None,
        own_voxel_size_um: Iterable[float] | None,
        voxel_size_um: Iterable[float] | None,
    ) -> Self | None:
        """The two grids of a volume; None where it is read in the file's voxels (no own shape)."""
        if own_shape is None:
            return None
        return cls(own_shape, VoxelSize.of(own_voxel_size_um), VoxelSize.of(voxel_size_um))

    @cached_property
    def factors(self) -> npt.NDArray[np.float64]:
        """Edges of a new voxel in the file's voxels, (3,)."""
        return self.voxel_size_um.array / self.own_voxel_size_um.array

    @property
    def shape(self) -> Triple:
        """New voxels along z, y, x: all whose centres lie in the file's volume, at least one."""
        sizes = zip(self.own_shape, self.factors.tolist(), strict=True)
        return three(max(1, math.ceil(n / f - 0.5 - _ROUNDING)) for n, f in sizes)

    @property
    def origin_um(self) -> npt.NDArray[np.float64]:
        """Place of the first new voxel's centre, (3,) micrometres from that of the file's."""
        return (self.voxel_size_um.array - self.own_voxel_size_um.array) / 2

    def to_own(self, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Points (..., 3) in new voxels, as voxels of the file."""
        return (np.asarray(points) + 0.5) * self.factors - 0.5

    def from_own(self, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Points (..., 3) in the file's voxels, as new ones.

        Examples
        --------
        >>> grid = Resampling((4, 4, 8), VoxelSize(1, 1, 1), VoxelSize(1, 1, 2))
        >>> grid.from_own([0, 0, 0.5])
        array([0., 0., 0.])
        """
        return (np.asarray(points) + 0.5) / self.factors - 0.5

    def own_box(self, box: Box) -> Box:
        """The file's voxels whose centres lie in a box of new ones.

        Boxes that partition the new grid partition the file's: what little the last new voxel
        leaves out belongs to it.

        Examples
        --------
        >>> grid = Resampling((4, 4, 7), VoxelSize(1, 1, 1), VoxelSize(1, 1, 2))
        >>> print(grid.own_box(Box((0, 0, 1), (4, 4, 3))))
        0:4, 0:4, 2:7
        """
        corners = zip(*box, self.factors.tolist(), self.shape, self.own_shape, strict=True)
        pairs = [(_first(a, f, m, n), _first(b, f, m, n)) for a, b, f, m, n in corners]
        return Box(three([a for a, _ in pairs]), three([b for _, b in pairs]))

    def covering(self, own: Box) -> Box:
        """The smallest box of new voxels around a box of the file's; at least one voxel.

        Examples
        --------
        >>> grid = Resampling((4, 4, 8), VoxelSize(1, 1, 1), VoxelSize(1, 1, 2))
        >>> print(grid.covering(Box((0, 0, 3), (4, 4, 6))))
        0:4, 0:4, 1:3
        """
        starts, stops = [], []
        for a, b, f, n in zip(*own, self.factors.tolist(), self.shape, strict=True):
            first = min(math.floor(a / f + _ROUNDING), n - 1)
            starts.append(first)
            stops.append(min(max(math.ceil(b / f - _ROUNDING), first + 1), n))
        return Box(three(starts), three(stops))


def _first(face: int, factor: float, shape: int, own_shape: int) -> int:
    """The file's first voxel whose centre lies at or behind a face of the new grid."""
    if face >= shape:
        return own_shape
    return min(math.ceil(face * factor - 0.5 - _ROUNDING), own_shape)
