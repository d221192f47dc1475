"""Pure geometry of tiles: cores that partition a volume, halos around them. No I/O, no torch."""

import itertools
import re
from dataclasses import dataclass

from voxmill.runtime.errors import VoxmillError

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Tile:
    """A core, and the window around it that is cut out of the volume.

    Parameters
    ----------
    core_start, core_stop : (3,) int
        The core in absolute voxels, z, y, x, half-open. Cores partition the volume.
    window_start, window_stop : (3,) int
        Core plus halo, clipped at the volume's border.
    """

    core_start: Triple
    core_stop: Triple
    window_start: Triple
    window_stop: Triple

    @property
    def name(self) -> str:
        """The core's absolute origin, so that a listing reads as a map: z0000_y0768_x0512."""
        return tile_name(self.core_start)

    @property
    def core_shape(self) -> Triple:
        return _minus(self.core_stop, self.core_start)

    @property
    def window_shape(self) -> Triple:
        return _minus(self.window_stop, self.window_start)

    @property
    def core_in_window(self) -> tuple[slice, slice, slice]:
        """Where the core lies in an array of the window."""
        return inside(self.core_start, self.core_stop, self.window_start)


def tile_name(core_start: Triple) -> str:
    """Name of the tile whose core starts at an absolute voxel."""
    return "z{:04d}_y{:04d}_x{:04d}".format(*core_start)


def tile_start(name: str) -> Triple:
    """The core's origin that a tile's name tells."""
    return tuple(int(part[1:]) for part in name.split("_"))


def slab_name(z_start: int) -> str:
    """Name of the slab of tiles whose cores start at plane `z_start`."""
    return f"z{z_start:04d}"


def grid_starts(shape: Triple, tile_shape: Triple) -> list[Triple]:
    """Origins of the cores, z slowest.

    Parameters
    ----------
    shape, tile_shape : (3,) int
        The volume and the largest core, voxels; cores at the far edges are smaller where the
        volume's shape is no multiple.

    Raises
    ------
    VoxmillError
        If a tile is not larger than zero, or the volume is empty.
    """
    _check_shape("tiles.shape_vox", tile_shape, least=1)
    _check_shape("volume shape", shape, least=1)
    axes = (range(0, n, t) for n, t in zip(shape, tile_shape, strict=True))
    return list(itertools.product(*axes))


def plan_tiles(shape: Triple, tile_shape: Triple, halo_vox: Triple) -> list[Tile]:
    """Cut a volume's box into tiles.

    Parameters
    ----------
    shape : (3,) int
        The volume, voxels.
    tile_shape : (3,) int
        The largest core, voxels.
    halo_vox : (3,) int
        Context on each side of a core, voxels, clipped at the volume's border.

    Raises
    ------
    VoxmillError
        If a tile is not larger than zero or a halo is negative.
    """
    _check_shape("tiles.halo_vox", halo_vox, least=0)
    tiles = []
    for start in grid_starts(shape, tile_shape):
        stop = tuple(min(a + t, n) for a, t, n in zip(start, tile_shape, shape, strict=True))
        tiles.append(Tile(start, stop, *grow(start, stop, halo_vox, shape)))
    return tiles


def grow(start: Triple, stop: Triple, by: Triple, shape: Triple) -> tuple[Triple, Triple]:
    """A box grown by voxels on every side and clipped at the volume's border: start and stop."""
    lower = tuple(max(int(a) - int(h), 0) for a, h in zip(start, by, strict=True))
    upper = tuple(min(int(b) + int(h), int(n)) for b, h, n in zip(stop, by, shape, strict=True))
    return lower, upper


def inside(start: Triple, stop: Triple, origin: Triple) -> tuple[slice, slice, slice]:
    """Where a box lies in an array whose first voxel is `origin`."""
    return tuple(slice(a - o, b - o) for a, b, o in zip(start, stop, origin, strict=True))


def parse_region(text: str, shape: Triple) -> tuple[Triple, Triple]:
    """Start and stop of a region written as "z0:z1, y0:y1, x0:x1", absolute voxels, half-open.

    Raises
    ------
    VoxmillError
        If the text is no such region, or the region is empty or leaves the volume.
    """
    match = re.fullmatch(r"\s*,\s*".join([r"(\d+)\s*:\s*(\d+)"] * 3), text.strip())
    if match is None:
        raise VoxmillError(f'region: expected "z0:z1, y0:y1, x0:x1", found {text!r}')
    numbers = [int(number) for number in match.groups()]
    start, stop = tuple(numbers[::2]), tuple(numbers[1::2])
    if any(not 0 <= a < b <= n for a, b, n in zip(start, stop, shape, strict=True)):
        raise VoxmillError(
            f"region: expected a part of the volume of shape {tuple(shape)} (z, y, x) that is not "
            f"empty, found {text!r}"
        )
    return start, stop


def _check_shape(key: str, values: Triple, least: int) -> None:
    if len(values) != 3 or any(isinstance(v, bool) or int(v) != v or v < least for v in values):
        raise VoxmillError(f"{key}: expected three integers >= {least} (z, y, x), found {values}")


def _minus(a: Triple, b: Triple) -> Triple:
    return tuple(p - q for p, q in zip(a, b, strict=True))
