"""The plan of a volume: the boxes of its tiles, written once and read by every job."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import read_json
from voxmill.tiles.grid import Tile, Triple, plan_tiles, slab_name

# What to do about a broken tile: Snakemake sees no difference until the file is gone.
REMAKE = "Delete it and run again: it alone is made anew, with what depends on it."


def make_plan(source: dict, fingerprint: str, tile_shape_vox: Triple, halo_vox: Triple) -> dict:
    """Plan of a volume as plain JSON values.

    Parameters
    ----------
    source : dict
        `shape` (3,), `dtype` (name) and `voxel_size_um` (3,) of the volume.
    fingerprint : str
        Of the volume's content; part of every tile's key, so that tiles of two volumes, grids or
        halos never mix.
    tile_shape_vox, halo_vox : (3,) int
        Largest core, and context on each side.
    """
    tiles = plan_tiles(tuple(source["shape"]), tile_shape_vox, halo_vox)
    return {
        "source": source,
        "fingerprint": fingerprint,
        "tile_shape_vox": list(tile_shape_vox),
        "halo_vox": list(halo_vox),
        "tiles": [_entry(tile, source, fingerprint) for tile in tiles],
    }


def _entry(tile: Tile, source: dict, fingerprint: str) -> dict:
    boxes = {name: list(value) for name, value in asdict(tile).items()}
    identity = json.dumps([boxes, source, fingerprint], sort_keys=True)
    return {
        "name": tile.name,
        "slab": slab_name(tile.core_start[0]),
        "start": boxes["core_start"],
        "stop": boxes["core_stop"],
        "window_start": boxes["window_start"],
        "window_stop": boxes["window_stop"],
        "key": hashlib.sha256(identity.encode()).hexdigest()[:16],
    }


def read_plan(path: str | Path) -> dict:
    """Read a plan file."""
    return read_json(path, "plan")


def find_tile(plan: dict, name: str, plan_path: str | Path = "plan") -> tuple[Tile, str]:
    """A tile of a plan and its key.

    Raises
    ------
    VoxmillError
        If the plan has no such tile.
    """
    for entry in plan["tiles"]:
        if entry["name"] == name:
            keys = ("start", "stop", "window_start", "window_stop")
            return Tile(*(tuple(entry[key]) for key in keys)), entry["key"]
    raise VoxmillError(f"{plan_path}: expected tile {name}, found {len(plan['tiles'])} others.")
