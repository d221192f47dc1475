"""Where tiles lie: cores that partition a volume, and halos around them."""

from collections.abc import Sequence
from dataclasses import dataclass

from voxmill.geometry import Box, Triple
from voxmill.runtime.errors import VoxmillError


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
    def slab(self) -> str:
        """Name of the slab that the tile belongs to."""
        return slab_name(self.core.start[0])

    @property
    def core_in_window(self) -> Box:
        """The core in the coordinates of an array of the window."""
        return self.core.relative_to(self.window.start)


def tile_name(core_start: Triple) -> str:
    """Name of the tile whose core starts at an absolute voxel."""
    return "z{:04d}_y{:04d}_x{:04d}".format(*core_start)


def slab_name(z_start: int) -> str:
    """Name of the slab of tiles whose cores start at plane `z_start`."""
    return f"z{z_start:04d}"


def grid_starts(shape: Sequence[int], tile_shape: Sequence[int]) -> list[Triple]:
    """Origins of the cores, z slowest; see `plan_tiles`."""
    return [core.start for core in _cores(shape, tile_shape)]


def plan_tiles(
    shape: Sequence[int], tile_shape: Sequence[int], halo_vox: Sequence[int]
) -> list[Tile]:
    """Cut a volume into tiles.

    Parameters
    ----------
    shape : (3,) int
        The volume, voxels.
    tile_shape : (3,) int
        The largest core, voxels; cores at the far edges are smaller where the volume's shape is
        not a multiple of it.
    halo_vox : (3,) int
        Halo on each side of a core, voxels, clipped at the volume's border.

    Returns
    -------
    list of Tile
        z slowest.

    Raises
    ------
    VoxmillError
        If a tile is not larger than zero, a halo is negative, or the volume is empty.
    """
    _check_shape("tiles.halo_vox", halo_vox, least=0)
    volume = Box.from_shape(shape)
    return [Tile(core, core.grow(halo_vox, within=volume)) for core in _cores(shape, tile_shape)]


def _cores(shape: Sequence[int], tile_shape: Sequence[int]) -> list[Box]:
    _check_shape("tiles.shape_vox", tile_shape, least=1)
    _check_shape("volume shape", shape, least=1)
    return Box.from_shape(shape).blocks(tile_shape)


def _check_shape(key: str, values: Sequence[int], least: int) -> None:
    if len(values) != 3 or any(isinstance(v, bool) or int(v) != v or v < least for v in values):
        raise VoxmillError(f"{key}: expected three integers >= {least} (z, y, x), found {values}")
