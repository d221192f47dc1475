"""Make one row of shards of a level of the pyramid from the level below."""

import math
import time
from collections.abc import Mapping

from voxmill.runtime.jobs import job, log_rate
from voxmill.runtime.rates import remember
from voxmill.tiles.plan import read_plan
from voxmill.tiles.predicted import PlannedImage, read_row_manifest, write_row_manifest
from voxmill.volumes.pyramid import write_row


@job
def build_level(
    *,
    plan_path: str,
    manifest_paths: list[str],
    image_path: str,
    storage: Mapping[str, str],
    level: int,
    row: int,
    output_path: str,
    how: str = "mean",
) -> None:
    """Write the shards of one row along z of a level, each made from the voxels below.

    Parameters
    ----------
    plan_path : path
    manifest_paths : list of path
        Lists of the shards below, one a row.
    image_path : path
        Folder of the image.
    storage : dict
        `dtype` and `compression` of the stored voxels.
    level : int
        From 1.
    row : int
        From 0.
    output_path : path
        JSON: the list of the shards that were written.
    how : str
        "mean" of the voxels below or, for labels, their "mode".

    Raises
    ------
    VoxmillError
        If a list is broken or of another plan, or a shard below is damaged.
    """
    start = time.perf_counter()
    image = PlannedImage.planned(image_path, read_plan(plan_path), storage)
    below, array = image.arrays[level - 1], image.arrays[level]
    for path in manifest_paths:
        read_row_manifest(path, [below])
    shards = write_row(below, array, image.levels[level], row, how)
    write_row_manifest(output_path, array, shards)
    voxels = sum(math.prod(array.box(index).shape) for index in array.indices(row))
    seconds = time.perf_counter() - start
    log_rate(f"row {row} of level {level}", voxels, seconds)
    remember("stitch" if how == "mean" else "label levels", voxels, seconds)
