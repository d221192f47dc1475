"""The size of a voxel, and the way from voxels to micrometres and back."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from voxmill.runtime.errors import VoxmillError


@dataclass(frozen=True)
class VoxelSize:
    """Edge lengths of a voxel in micrometres.

    Parameters
    ----------
    z, y, x : float
        Micrometres; positive and finite.

    Raises
    ------
    VoxmillError
        If a length is no number, or is not positive and finite.

    Examples
    --------
    >>> size = VoxelSize(2.0, 0.5, 0.5)
    >>> size.volume_um3
    0.5
    >>> size.to_um([[1, 10, 100]])
    array([[ 2.,  5., 50.]])
    >>> size.to_vox([[2, 5, 50]])
    array([[  1.,  10., 100.]])
    """

    z: float
    y: float
    x: float

    def __post_init__(self) -> None:
        for axis, value in zip("zyx", _lengths((self.z, self.y, self.x)), strict=True):
            object.__setattr__(self, axis, value)

    @classmethod
    def of(cls, lengths: Iterable[float] | None) -> "VoxelSize":
        """The voxel size of any three lengths z, y, x, or the voxel size that is given.

        Raises
        ------
        VoxmillError
            If they are not three numbers (None, where a volume's header tells none), or one is not
            positive and finite.

        Examples
        --------
        >>> VoxelSize.of([2, 1, 1])
        VoxelSize(z=2.0, y=1.0, x=1.0)
        """
        return lengths if isinstance(lengths, cls) else cls(*_lengths(lengths))

    def __iter__(self) -> Iterator[float]:
        return iter((self.z, self.y, self.x))

    @cached_property
    def array(self) -> npt.NDArray[np.float64]:
        """The three lengths as an array that can't be written to."""
        array = np.array([self.z, self.y, self.x])
        array.flags.writeable = False
        return array

    @property
    def volume_um3(self) -> float:
        """Volume of a voxel, cubic micrometres."""
        return float(np.prod(self.array))

    def to_um(self, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Points or distances (..., 3) in voxels, as micrometres."""
        return np.asarray(points) * self.array

    def to_vox(self, points_um: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Points or distances (..., 3) in micrometres, as voxels."""
        return np.asarray(points_um) / self.array


def _lengths(values: object) -> tuple[float, float, float]:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape != (3,) or not np.isfinite(array).all() or (array <= 0).any():
        raise VoxmillError(
            f"voxel_size_um: expected three lengths above 0 (z, y, x), found {values!r}"
        )
    z, y, x = array.tolist()
    return z, y, x
