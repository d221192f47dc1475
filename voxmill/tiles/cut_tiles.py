"""Cut tiles with their halos out of a volume."""

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from voxmill.runtime import disk
from voxmill.runtime.checked import write_checked_json
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.jobs import job, log_rate, logger, overlapped
from voxmill.runtime.rates import remember
from voxmill.tiles.plan import REMAKE, Plan, PlannedTile, read_plan
from voxmill.tiles.tile_source import open_tiles
from voxmill.volumes import read_tile, tile_pages, write_tile
from voxmill.volumes.sources import ChangedSourceError

Voxels = npt.NDArray[Any]


@job
def cut_tiles(
    *,
    volume: dict[str, Any],
    plan_path: str,
    tiles: Sequence[str],
    folder: str,
    output_path: str,
    code: str,
) -> None:
    """Write tiles, each its core with the halo around it, in the volume's dtype.

    Each is a file of its own, a TIFF that carries the tile's key, the code's digest and the
    checksum of its voxels. Those that are there, whole and made with the same code, are kept.

    Parameters
    ----------
    volume : dict
        Arguments of `voxmill.volumes.read_header`.
    plan_path : path
    tiles : sequence of str
        Their names.
    folder : path
        Where the tiles go.
    output_path : path
        Written at the end. JSON: name, key, bytes and checksum of each tile. Without `.json` at its
        end, a folder: `folder` itself gets that name.
    code : str
        Digest of the code, kept with each tile.

    Raises
    ------
    VoxmillError
        If the plan has no such tile, the volume is not the planned one, can't be read there or
        holds NaN or infinite voxels, or the disk has no room for all of the tiles.
    """
    plan = read_plan(plan_path)
    planned = [plan.tile(name) for name in tiles]
    files = _Files(plan, Path(folder), code)
    left = [tile for tile in planned if not files.is_whole(tile)]
    logger.info("%d of %d tiles are there already", len(planned) - len(left), len(planned))
    if not left:
        logger.info("kept, whole and cut by the same plan: %s", folder)
    files.check_space(left)
    start = time.perf_counter()
    try:
        with open_tiles({"volume": volume}, plan) as source:
            overlapped(left, source.read, lambda _, voxels: voxels, files.write)
    except ChangedSourceError:
        # They may be of another volume than the one whose key they have.
        files.remove(left)
        raise
    if left:
        voxels, seconds = sum(tile.window.size for tile in left), time.perf_counter() - start
        log_rate("cut", voxels, seconds)
        remember("cut", voxels, seconds)
    if output_path.endswith(".json"):
        write_checked_json(output_path, {"tiles": [files.entry(tile) for tile in planned]})
    else:
        shutil.rmtree(output_path, ignore_errors=True)
        os.replace(folder, output_path)
        disk.sync(Path(output_path).parent)


class _Files:
    """Files of tiles in a folder."""

    def __init__(self, plan: Plan, folder: Path, code: str):
        self.volume, self.folder, self.code = plan.volume, folder, code

    def path(self, tile: PlannedTile) -> Path:
        return self.folder / f"{tile.name}.tif"

    def keys(self, tile: PlannedTile) -> dict[str, str]:
        return {"tile": tile.key, "made_with": self.code}

    def is_whole(self, tile: PlannedTile) -> bool:
        """Whether a tile's file is there, undamaged, and made with what this job would use."""
        path = self.path(tile)
        try:
            if not path.exists():
                return False
            read_tile(path, tile.window.shape, self.volume.dtype, self.keys(tile), REMAKE)
        except VoxmillError as error:
            logger.warning("%s It is cut again.", error)
            return False
        return True

    def check_space(self, tiles: Sequence[PlannedTile]) -> None:
        """Refuse to begin where the disk has no room for all of them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        voxels = sum(tile.window.size for tile in tiles)
        disk.check_space(self.folder / "tiles", voxels * np.dtype(self.volume.dtype).itemsize)

    def write(self, tile: PlannedTile, voxels: Voxels) -> None:
        size_um = self.volume.voxel_size_um
        write_tile(self.path(tile), voxels, size_um, tile.window.start, self.keys(tile))

    def remove(self, tiles: Sequence[PlannedTile]) -> None:
        for tile in tiles:
            self.path(tile).unlink(missing_ok=True)

    def entry(self, tile: PlannedTile) -> dict[str, Any]:
        """The entry of a tile in a manifest; its header is read for it."""
        path, keys = self.path(tile), self.keys(tile)
        with tile_pages(path, tile.window.shape, self.volume.dtype, keys, REMAKE) as pages:
            crc32 = pages.crc32
        return {"name": tile.name, "bytes": path.stat().st_size, "crc32": crc32, **keys}
