"""The plan of a volume: its grid of tiles and their halo, written once, read by every later job."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from voxmill.geometry import Box, Resampling, Triple
from voxmill.runtime.checked import verified, write_checked_json
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import read_json
from voxmill.tiles.grid import Grid, Tile, check_halo
from voxmill.tiles.records import Record

# What to do about a broken tile: Snakemake sees no difference until the file is gone.
REMAKE = "Delete it and run again: it alone is made anew, with what depends on it."
REMAKE_PLAN = "Delete the file and run again: the volume is planned anew."


@dataclass(frozen=True)
class PlannedVolume:
    """What a plan says about its volume.

    Parameters
    ----------
    shape : (3,) int
        Voxels, z, y, x.
    dtype : str
        Name of the voxels' type.
    voxel_size_um : (3,) float
        Edge lengths of a voxel, z, y, x, micrometres.
    own_shape, own_voxel_size_um : (3,) int and (3,) float, or None
        Of the file, where the volume is resampled on reading.
    """

    shape: Triple
    dtype: str
    voxel_size_um: tuple[float, float, float]
    own_shape: Triple | None = None
    own_voxel_size_um: tuple[float, float, float] | None = None

    @property
    def resampling(self) -> Resampling | None:
        """The file's voxels and those of the plan, where these are others."""
        return Resampling.between(self.own_shape, self.own_voxel_size_um, self.voxel_size_um)

    @property
    def origin_um(self) -> tuple[float, float, float]:
        """Place of the first voxel's centre, where that of the file is 0, z, y, x."""
        z, y, x = self.resampling.origin_um.tolist() if self.resampling else (0.0, 0.0, 0.0)
        return z, y, x

    def to_json(self) -> dict[str, Any]:
        """The volume as plain JSON values."""
        content = {
            "shape": list(self.shape),
            "dtype": self.dtype,
            "voxel_size_um": list(self.voxel_size_um),
        }
        if self.own_shape is not None and self.own_voxel_size_um is not None:
            content["own_shape"] = list(self.own_shape)
            content["own_voxel_size_um"] = list(self.own_voxel_size_um)
        return content


@dataclass(frozen=True)
class PlannedTile(Tile):
    """A tile of a plan.

    Parameters
    ----------
    core, window : Box
        As of `Tile`.
    source : str
        What the plan says of the volume, and its fingerprint, as JSON.
    """

    source: str

    @property
    def key(self) -> str:
        """Digest of the tile's boxes and of the volume.

        Tiles of two volumes, grids or halos never mix.
        """
        boxes = {
            "core_start": list(self.core.start),
            "core_stop": list(self.core.stop),
            "window_start": list(self.window.start),
            "window_stop": list(self.window.stop),
        }
        identity = f"[{json.dumps(boxes, sort_keys=True)}, {self.source}]"
        return hashlib.sha256(identity.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Plan:
    """The tiles of a volume: a grid and a halo, from which each tile is computed.

    Parameters
    ----------
    volume : PlannedVolume
    fingerprint : str
        Of the volume's content, see `voxmill.volumes.fingerprint`; part of every tile's key.
    tile_shape_vox, halo_vox : (3,) int
        The largest core, and the halo on each side.
    origin : str
        What errors call the plan: its file.

    Raises
    ------
    VoxmillError
        If a tile is not larger than zero, a halo is negative, or the volume is empty.
    """

    volume: PlannedVolume
    fingerprint: str
    tile_shape_vox: Triple
    halo_vox: Triple
    origin: str = field(default="plan", compare=False)

    def __post_init__(self) -> None:
        check_halo(self.halo_vox)
        _ = self.grid

    @cached_property
    def grid(self) -> Grid:
        """The cores."""
        return Grid(self.volume.shape, self.tile_shape_vox)

    @cached_property
    def tiles(self) -> tuple[PlannedTile, ...]:
        """All tiles, z slowest."""
        return tuple(map(self._tile, range(len(self.grid))))

    def tile(self, name: str) -> PlannedTile:
        """The tile of a name.

        Raises
        ------
        VoxmillError
            If the plan has no such tile.
        """
        number = self.grid.number(name)
        if number is None:
            raise VoxmillError(
                f"{self.origin}: expected tile {name}, found {len(self.grid)} others."
            )
        return self._tile(number)

    def slab(self, name: str, part: Sequence[Triple] | None = None) -> list[PlannedTile]:
        """The tiles of a slab: those whose cores start at the same plane, or rows of them.

        Parameters
        ----------
        name : str
        part : pair of (3,) int, optional
            Start and stop of a box: only the tiles whose cores meet it.

        Raises
        ------
        VoxmillError
            If the plan has no such slab.
        """
        numbers = self.grid.slab(name)
        if not numbers:
            raise VoxmillError(f"{self.origin}: expected tiles of slab {name}, found none.")
        tiles = map(self._tile, numbers)
        return [tile for tile in tiles if part is None or tile.core.overlaps(Box(*part))]

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON values."""
        return {
            "source": self.volume.to_json(),
            "fingerprint": self.fingerprint,
            "tile_shape_vox": list(self.tile_shape_vox),
            "halo_vox": list(self.halo_vox),
        }

    def _tile(self, number: int) -> PlannedTile:
        core = self.grid.core(number)
        window = core.grow(self.halo_vox, within=Box.from_shape(self.volume.shape))
        return PlannedTile(core, window, self._source)

    @cached_property
    def _source(self) -> str:
        volume = json.dumps(self.volume.to_json(), sort_keys=True)
        return f"{volume}, {json.dumps(self.fingerprint)}"


def write_plan(path: str | Path, plan: Plan) -> None:
    """Write a plan as JSON; the same plan gives the same bytes."""
    write_checked_json(path, plan.to_json())


def read_plan(path: str | Path) -> Plan:
    """Read a plan that `write_plan` wrote.

    Raises
    ------
    VoxmillError
        If the file is missing or no JSON object, or a key is missing or holds another type of
        value; the message names file, key and what to do.
    """
    content = read_json(path, "plan")
    record = Record(content, str(path), REMAKE_PLAN)
    source = record.object("source")
    resampled = "own_shape" in source.content
    volume = PlannedVolume(
        source.triple("shape"),
        source.text("dtype"),
        source.lengths("voxel_size_um"),
        source.triple("own_shape") if resampled else None,
        source.lengths("own_voxel_size_um") if resampled else None,
    )
    fingerprint = record.text("fingerprint")
    grid = record.triple("tile_shape_vox"), record.triple("halo_vox")
    try:
        plan = Plan(volume, fingerprint, *grid, origin=str(path))
    except VoxmillError as error:
        raise record.error(str(error)) from None
    # Last, since a missing key says more than a checksum.
    verified(content, path, "plan", REMAKE_PLAN)
    return plan
