"""A half-open box of voxels."""

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from voxmill.geometry.voxel_size import VoxelSize
from voxmill.runtime.errors import VoxmillError

Triple = tuple[int, int, int]
Slices = tuple[slice, slice, slice]
Integers = Sequence[int] | npt.NDArray[np.integer]
"""Three whole numbers z, y, x, as a tuple, a list or an array."""

_Value = TypeVar("_Value")

_REGION = re.compile(r"\s*,\s*".join([r"(\d+)\s*:\s*(\d+)"] * 3))


def three(values: Iterable[_Value]) -> tuple[_Value, _Value, _Value]:
    """Values of z, y, x as a tuple."""
    z, y, x = values
    return z, y, x


@dataclass(frozen=True)
class Box:
    """A box of voxels, from `start` up to, not including, `stop`.

    A point belongs to the voxel nearest to it: voxel 3 reaches from 2.5 up to, not including, 3.5.
    Iterating gives `start` and `stop`, so that `volume.read_window(*box)` reads a box.

    Parameters
    ----------
    start, stop : (3,) int
        Corners in voxels, z, y, x. `stop` is nowhere below `start`; a box may be empty.

    Raises
    ------
    VoxmillError
        If a corner is not three whole numbers, or `stop` is below `start`.

    Examples
    --------
    >>> box = Box((0, 2, 4), (1, 5, 9))
    >>> box.shape
    (1, 3, 5)
    >>> print(box)
    0:1, 2:5, 4:9
    >>> np.zeros((10, 10, 10))[box.slices].shape
    (1, 3, 5)
    """

    start: Triple
    stop: Triple

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", _whole_numbers("start", self.start))
        object.__setattr__(self, "stop", _whole_numbers("stop", self.stop))
        if any(a > b for a, b in zip(self.start, self.stop, strict=True)):
            raise VoxmillError(
                f"box: expected a stop that is nowhere below the start {self.start} (z, y, x), "
                f"found {self.stop}"
            )

    @classmethod
    def from_shape(cls, shape: Integers, start: Integers = (0, 0, 0)) -> "Box":
        """The box of a shape: that of a whole volume, or one that begins at `start`.

        Examples
        --------
        >>> Box.from_shape((2, 3, 4))
        Box(start=(0, 0, 0), stop=(2, 3, 4))
        >>> Box.from_shape((2, 3, 4), start=(5, 0, 0))
        Box(start=(5, 0, 0), stop=(7, 3, 4))
        """
        first = _whole_numbers("start", start)
        return cls(first, _add(first, _whole_numbers("shape", shape)))

    @classmethod
    def parse(cls, text: str, shape: Sequence[int]) -> "Box":
        """A part of a volume as it is written in the configuration.

        Parameters
        ----------
        text : str
            "z0:z1, y0:y1, x0:x1", absolute voxels, half-open.
        shape : (3,) int
            The volume, voxels.

        Raises
        ------
        VoxmillError
            If the text is no box, or the box is empty or reversed or leaves the volume.

        Examples
        --------
        >>> Box.parse("0:1, 2:5, 4:9", (10, 10, 10))
        Box(start=(0, 2, 4), stop=(1, 5, 9))
        """
        match = _REGION.fullmatch(text.strip())
        if match is None:
            raise VoxmillError(f'box: expected "z0:z1, y0:y1, x0:x1", found {text!r}')
        numbers = [int(number) for number in match.groups()]
        limits = zip(numbers[::2], numbers[1::2], shape, strict=True)
        if any(not a < b <= n for a, b, n in limits):
            raise VoxmillError(
                f"box: expected a part of the volume of shape {tuple(shape)} (z, y, x) that is "
                f"not empty, found {text!r}"
            )
        return cls(three(numbers[::2]), three(numbers[1::2]))

    def __iter__(self) -> Iterator[Triple]:
        return iter((self.start, self.stop))

    def __str__(self) -> str:
        return ", ".join(f"{a}:{b}" for a, b in zip(*self, strict=True))

    def to_lists(self) -> list[list[int]]:
        """Start and stop as lists, for JSON."""
        return [list(self.start), list(self.stop)]

    @property
    def shape(self) -> Triple:
        """Voxels along z, y, x."""
        return three([b - a for a, b in zip(*self, strict=True)])

    @property
    def size(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    @property
    def slices(self) -> Slices:
        """Index of the box in an array whose first voxel is (0, 0, 0)."""
        return three(slice(a, b) for a, b in zip(*self, strict=True))

    def grow(self, by: int | Integers, within: "Box | None" = None) -> "Box":
        """The box with a margin on every side.

        Parameters
        ----------
        by : int or (3,) int
            Voxels on each side, the same for every axis or z, y, x.
        within : Box, optional
            The grown box is clipped at the faces of this one.

        Examples
        --------
        >>> print(Box((0, 2, 4), (1, 5, 9)).grow(2, within=Box.from_shape((10, 6, 10))))
        0:3, 0:6, 2:10
        """
        margin = (by, by, by) if isinstance(by, int) else _whole_numbers("by", by)
        grown = Box(_subtract(self.start, margin), _add(self.stop, margin))
        return grown if within is None else grown.clip(within)

    def clip(self, other: "Box") -> "Box":
        """The part of this box that lies in another; empty, at its border, where none does.

        Examples
        --------
        >>> print(Box((0, 0, 0), (4, 4, 4)).clip(Box((2, 0, 1), (9, 3, 2))))
        2:4, 0:3, 1:2
        """
        start = [max(a, b) for a, b in zip(self.start, other.start, strict=True)]
        stop = [min(a, b) for a, b in zip(self.stop, other.stop, strict=True)]
        return Box(three(start), three([max(a, b) for a, b in zip(start, stop, strict=True)]))

    def overlaps(self, other: "Box") -> bool:
        """Whether both boxes have a voxel in common.

        Examples
        --------
        >>> Box((0, 0, 0), (4, 4, 4)).overlaps(Box((4, 0, 0), (5, 4, 4)))
        False
        """
        return self.clip(other).size > 0

    def relative_to(self, origin: Integers) -> "Box":
        """The same box in the coordinates of an array whose first voxel is `origin`.

        Examples
        --------
        >>> core, window = Box((8, 8, 8), (16, 16, 16)), Box((5, 5, 5), (19, 19, 19))
        >>> print(core.relative_to(window.start))
        3:11, 3:11, 3:11
        """
        offset = _whole_numbers("origin", origin)
        return Box(_subtract(self.start, offset), _subtract(self.stop, offset))

    def with_axis(self, axis: int, start: int, stop: int) -> "Box":
        """The box with another extent along one axis.

        Examples
        --------
        >>> print(Box.from_shape((4, 4, 4)).with_axis(1, 2, 9))
        0:4, 2:9, 0:4
        """
        first, last = list(self.start), list(self.stop)
        first[axis], last[axis] = start, stop
        return Box(three(first), three(last))

    def aligned(self, multiple: int | Integers) -> "Box":
        """The smallest box around this one whose corners are multiples of a number, or of three.

        Examples
        --------
        >>> print(Box((3, 4, 5), (7, 8, 9)).aligned(4))
        0:8, 4:8, 4:12
        >>> print(Box((3, 4, 5), (7, 8, 9)).aligned((1, 3, 9)))
        3:7, 3:9, 0:9
        """
        edges = (multiple,) * 3 if isinstance(multiple, int) else _whole_numbers("edges", multiple)
        start = [a // edge * edge for a, edge in zip(self.start, edges, strict=True)]
        stop = [b + -b % edge for b, edge in zip(self.stop, edges, strict=True)]
        return Box(three(start), three(stop))

    def shifted_by(self, offset: Integers) -> "Box":
        """The box moved by so many voxels along z, y, x; the inverse of `relative_to`."""
        by = _whole_numbers("offset", offset)
        return Box(_add(self.start, by), _add(self.stop, by))

    def blocks(self, edges: int | Integers) -> "list[Box]":
        """Cut the box, z slowest, into blocks of given edges; the last of an axis may be smaller.

        Parameters
        ----------
        edges : int or (3,) int
            Edge of a block, voxels, the same for every axis or z, y, x.

        Examples
        --------
        >>> for block in Box.from_shape((2, 2, 5)).blocks(3):
        ...     print(block)
        0:2, 0:2, 0:3
        0:2, 0:2, 3:5
        """
        steps = (edges, edges, edges) if isinstance(edges, int) else _whole_numbers("edges", edges)
        axes = zip(*self, steps, strict=True)
        return _product([[*range(a, b, step), b] if b > a else [] for a, b, step in axes])

    def split(self, counts: Sequence[int]) -> "list[Box]":
        """Cut the box into `counts` parts along z, y, x that differ by at most one voxel.

        Examples
        --------
        >>> for part in Box.from_shape((2, 2, 5)).split((1, 1, 2)):
        ...     print(part)
        0:2, 0:2, 0:2
        0:2, 0:2, 2:5
        """
        axes = zip(*self, counts, strict=True)
        return _product([[a + (b - a) * i // n for i in range(n + 1)] for a, b, n in axes])

    def contains(self, points: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Whether the voxel nearest to each point lies in the box.

        Parameters
        ----------
        points : (N, 3) float array
            Voxels, z, y, x. Half-way between two voxels it is the upper one.

        Returns
        -------
        (N,) bool array

        Examples
        --------
        >>> Box((0, 0, 0), (1, 1, 2)).contains([[0, 0, -0.5], [0, 0, 1.49], [0, 0, 1.5]]).tolist()
        [True, True, False]
        """
        low, high = self._faces()
        places = np.asarray(points)
        inside: npt.NDArray[np.bool_] = np.all((places >= low) & (places < high), axis=1)
        return inside

    def distance_um(
        self, points: npt.ArrayLike, voxel_size_um: VoxelSize
    ) -> npt.NDArray[np.float64]:
        """Distance of each point to the box's outer faces, 0 inside.

        Parameters
        ----------
        points : (N, 3) float array
            Voxels, z, y, x.
        voxel_size_um : VoxelSize

        Returns
        -------
        (N,) float array
            Micrometres.

        Examples
        --------
        The last voxel along x is 1, so that the face is at 1.5:

        >>> Box((0, 0, 0), (1, 1, 2)).distance_um([[0, 0, 1], [0, 0, 3]], VoxelSize(1, 1, 2))
        array([0., 3.])
        """
        low, high = self._faces()
        places = np.asarray(points)
        beyond = np.maximum(np.maximum(low - places, places - high), 0) * voxel_size_um.array
        distance: npt.NDArray[np.float64] = np.sqrt((beyond**2).sum(axis=1))
        return distance

    def _faces(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        return np.asarray(self.start) - 0.5, np.asarray(self.stop) - 0.5


def _product(edges: list[list[int]]) -> list[Box]:
    """Boxes between neighbouring edges of each axis, z slowest."""
    parts = itertools.product(*(itertools.pairwise(axis) for axis in edges))
    return [Box(three([a for a, _ in part]), three([b for _, b in part])) for part in parts]


def _whole_numbers(name: str, values: Integers) -> Triple:
    found = tuple(int(value) for value in values)
    if len(found) != 3 or any(a != b for a, b in zip(found, values, strict=True)):
        raise VoxmillError(f"box: expected {name} as three whole numbers (z, y, x), found {values}")
    return found


def _add(a: Triple, b: Triple) -> Triple:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def _subtract(a: Triple, b: Triple) -> Triple:
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]
