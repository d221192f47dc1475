"""Cut a tile with its halo out of a volume."""

import time
from pathlib import Path
from typing import Any

from voxmill.runtime.jobs import job, log_rate, logger
from voxmill.tiles.plan import read_plan
from voxmill.volumes import (
    check_finite,
    check_source,
    is_tile,
    open_volume,
    read_header,
    write_tile,
)


@job
def cut_tile(
    *, volume: dict[str, Any], plan_path: str, tile: str, output_path: str, code: str = ""
) -> None:
    """Write one tile, its core with the halo around it, in the volume's dtype.

    A tile that is there, whole and cut by the same plan and code, is kept.

    Parameters
    ----------
    volume : dict
        Arguments of `voxmill.volumes.read_header`.
    plan_path : path
    tile : str
        The tile's name.
    output_path : path
        A TIFF file that carries the tile's key and the checksum of its voxels.
    code : str
        Digest of the code, kept with the tile.

    Raises
    ------
    VoxmillError
        If the plan has no such tile, or the volume is not the planned one, can't be read there or
        holds NaN or infinite voxels.
    """
    start = time.perf_counter()
    plan = read_plan(plan_path)
    planned = plan.tile(tile)
    window = planned.window
    keys = {"tile": planned.key, "made_with": code}
    if Path(output_path).exists() and is_tile(output_path, window.shape, plan.volume.dtype, keys):
        logger.info("kept, whole and cut by the same plan: %s", output_path)
        return
    header = read_header(**volume)
    with open_volume(header) as source:
        voxels = source.read_window(*window)
    # Behind the reading, so that no file that was replaced meanwhile goes unseen.
    check_source(header, plan.fingerprint)
    check_finite(voxels, header.path, window.start)
    write_tile(output_path, voxels, header.voxel_size_um, window.start, keys)
    log_rate("cut", voxels.size, time.perf_counter() - start)
