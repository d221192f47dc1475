"""Check the predictions of one slab of tiles."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from voxmill.geometry import Triple
from voxmill.runtime.jobs import job, logger
from voxmill.runtime.rates import remember
from voxmill.tiles.plan import PlannedTile, read_plan
from voxmill.tiles.predicted import (
    PlannedImage,
    check_identity,
    read_predicted,
    write_row_manifest,
)
from voxmill.volumes.shard_files import StoredShard


@job
def check_slab(
    *,
    plan_path: str,
    slab: str,
    predictions_folder: str,
    image_path: str,
    storage: Mapping[str, str],
    model: str,
    output_path: str,
    part: list[Triple] | None = None,
    threads: int = 1,
) -> None:
    """Check that the shards of one slab are whole and the plan's; write the list of them.

    A job that reads thousands of inputs would make Snakemake slow; one that reads a list for each
    slab does not.

    Parameters
    ----------
    plan_path : path
    slab : str
        Name of the slab: the tiles whose cores start at the same plane, or rows of them.
    predictions_folder : path
        Holds a JSON file for each tile, under its name.
    image_path : path
        Folder of the image whose level 0 holds the shards.
    storage : dict
        `dtype` and `compression` of the stored probabilities.
    model : str
        Digest of the weights that made the predictions.
    output_path : path
        JSON: file and checksum of each shard, so that it changes with any of them.
    part : pair of (3,) int, optional
        Start and stop of a box of cores: only these are predicted.
    threads : int
        Shards that are read at once.

    Raises
    ------
    VoxmillError
        If the plan has no such slab, or a prediction is missing, damaged, of another plan, of
        another model or stored in another way.
    """
    plan = read_plan(plan_path)
    array = PlannedImage.planned(image_path, plan, storage).arrays[0]

    def check(tile: PlannedTile) -> StoredShard:
        path = Path(predictions_folder, f"{tile.name}.json")
        expected = {"tile": tile.key, "model": model, "array": array.digest}
        stored = check_identity(read_predicted(path), expected, path).stored
        array.verify(stored, f"Delete {path} and run again: this tile alone is predicted anew.")
        return stored

    tiles = plan.slab(slab, part)
    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as executor:
        shards = list(executor.map(check, tiles))
    remember("check", sum(tile.core.size for tile in tiles), time.perf_counter() - start)
    write_row_manifest(output_path, array, shards)
    logger.info(
        "%d shards are whole, %d tiles are empty; %.3f bytes a voxel",
        sum(not shard.is_empty for shard in shards),
        sum(shard.is_empty for shard in shards),
        sum(shard.bytes for shard in shards) / sum(tile.core.size for tile in tiles),
    )
