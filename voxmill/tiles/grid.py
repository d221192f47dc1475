"""Where tiles lie: cores that partition a volume, and halos around them."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from voxmill.geometry import Box, Triple, three
from voxmill.runtime.errors import VoxmillError

MOST_IN_SLAB = 1000
"""Tiles whose predictions one job checks."""
_TILE_NAME = re.compile(r"z(\d+)_y(\d+)_x(\d+)")


@dataclass(frozen=True)
class Tile:
    """A core, and the window around it that is cut out of the volume; absolute voxels.

    Parameters
    ----------
    core : Box
        The cores of a grid partition the volume.
    window : Box
        The core and its halo, clipped at the volume's border.

    Examples
    --------
    >>> tile = Tile(core=Box((0, 0, 4), (4, 4, 8)), window=Box((0, 0, 2), (6, 6, 10)))
    >>> tile.name
    'z0000_y0000_x0004'
    >>> print(tile.core_in_window)
    0:4, 0:4, 2:6
    """

    core: Box
    window: Box

    @property
    def name(self) -> str:
        """The core's absolute origin, so that a listing reads as a map: z0000_y0768_x0512."""
        return tile_name(self.core.start)

    @property
    def core_in_window(self) -> Box:
        """The core in the coordinates of an array of the window."""
        return self.core.relative_to(self.window.start)


def tile_name(core_start: Triple) -> str:
    """Name of the tile whose core starts at an absolute voxel."""
    return "z{:04d}_y{:04d}_x{:04d}".format(*core_start)


@dataclass(frozen=True)
class Grid:
    """The cores of a volume by number, z slowest: each is computed, nothing is listed.

    Parameters
    ----------
    shape : (3,) int
        The volume, voxels.
    tile_shape : (3,) int
        The largest core; those at the far faces are smaller where the shape is no multiple of it.
    box : Box, optional
        Only the cores that meet it; the grid stays that of the whole volume.

    Raises
    ------
    VoxmillError
        If a tile is not larger than zero, or the volume is empty.

    Examples
    --------
    >>> grid = Grid((1, 10, 10), (1, 4, 4))
    >>> len(grid), grid.name(5), str(grid.core(5))
    (9, 'z0000_y0004_x0008', '0:1, 4:8, 8:10')
    >>> Grid((1, 10, 10), (1, 4, 4), Box((0, 5, 0), (1, 6, 5))).names
    ('z0000_y0004_x0000', 'z0000_y0004_x0004')
    """

    shape: Triple
    tile_shape: Triple
    box: Box | None = None

    def __post_init__(self) -> None:
        _check_shape("tiles.shape_vox", self.tile_shape, least=1)
        _check_shape("volume shape", self.shape, least=1)

    @cached_property
    def first(self) -> Triple:
        """Place in the grid of the first core, z, y, x; zero without a box."""
        return three(a // edge for a, edge in zip(self._box.start, self.tile_shape, strict=True))

    @cached_property
    def counts(self) -> Triple:
        """Number of cores along z, y, x."""
        limits = zip(self._box.stop, self.first, self.tile_shape, strict=True)
        return three(-(-b // edge) - first for b, first, edge in limits)

    @property
    def _box(self) -> Box:
        return Box.from_shape(self.shape) if self.box is None else self.box

    def __len__(self) -> int:
        return math.prod(self.counts)

    def start(self, number: int) -> Triple:
        """First voxel of a core."""
        _, rows, columns = self.counts
        places = (number // columns // rows, number // columns % rows, number % columns)
        axes = zip(self.first, places, self.tile_shape, strict=True)
        return three((first + place) * edge for first, place, edge in axes)

    def core(self, number: int) -> Box:
        """A core by its number, from 0 to `len(grid) - 1`."""
        start = self.start(number)
        limits = zip(start, self.tile_shape, self.shape, strict=True)
        return Box(start, three(min(a + edge, n) for a, edge, n in limits))

    def name(self, number: int) -> str:
        """Name of the tile of a number."""
        return tile_name(self.start(number))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of all tiles."""
        (z0, y0, x0), (nz, ny, nx) = self.first, self.counts
        dz, dy, dx = self.tile_shape
        return tuple(
            tile_name((z * dz, y * dy, x * dx))
            for z in range(z0, z0 + nz)
            for y in range(y0, y0 + ny)
            for x in range(x0, x0 + nx)
        )

    def number(self, name: str) -> int | None:
        """Number of the tile of a name; None where the grid has no such tile."""
        match = _TILE_NAME.fullmatch(name)
        if match is None:
            return None
        start = three(int(part) for part in match.groups())
        axes = zip(start, self.tile_shape, self.first, strict=True)
        places = three(a // edge - first for a, edge, first in axes)
        if any(not 0 <= place < n for place, n in zip(places, self.counts, strict=True)):
            return None
        number = (places[0] * self.counts[1] + places[1]) * self.counts[2] + places[2]
        return number if self.name(number) == name else None

    @property
    def slabs(self) -> list[str]:
        """Names of the slabs: tiles whose cores start at the same plane.

        Where these are more than `MOST_IN_SLAB`, a slab is some rows of them along y, the same
        ones for a part of the volume as for the whole.
        """
        return [name for layer in self.layers for name in layer]

    def slab(self, name: str) -> range:
        """Numbers of the tiles of a slab; none where the grid has no such slab."""
        return next((layer[name] for layer in self.layers if name in layer), range(0))

    @cached_property
    def layers(self) -> list[dict[str, range]]:
        """For each layer of tiles along z, its slabs by name, and the numbers of their tiles."""
        return [self._slabs_of(layer) for layer in range(self.counts[0])]

    def _slabs_of(self, layer: int) -> dict[str, range]:
        (z0, y0, _), (_, rows, columns) = self.first, self.counts
        depth, height, _ = self.tile_shape
        _, all_rows, all_columns = Grid(self.shape, self.tile_shape).counts
        name = f"z{(z0 + layer) * depth:04d}"
        start = layer * rows * columns
        if all_rows * all_columns <= MOST_IN_SLAB:
            return {name: range(start, start + rows * columns)}
        together = max(1, MOST_IN_SLAB // all_columns)
        slabs = {}
        for first in range(y0 // together * together, y0 + rows, together):
            low, high = max(first - y0, 0), min(first + together - y0, rows)
            numbers = range(start + low * columns, start + high * columns)
            slabs[f"{name}_y{first * height:04d}"] = numbers
        return slabs


def check_halo(halo_vox: Sequence[int]) -> None:
    """Refuse a halo that is not three whole numbers from 0."""
    _check_shape("tiles.halo_vox", halo_vox, least=0)


def _check_shape(key: str, values: Sequence[int], least: int) -> None:
    if len(values) != 3 or any(isinstance(v, bool) or int(v) != v or v < least for v in values):
        raise VoxmillError(f"{key}: expected three integers >= {least} (z, y, x), found {values}")
