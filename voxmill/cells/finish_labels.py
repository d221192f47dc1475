"""Make one image of labelled slabs: the pyramid, then the metadata."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from voxmill.cells.label_slab import planned_labels
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import write_text
from voxmill.runtime.jobs import job, logger
from voxmill.tiles.plan import read_plan
from voxmill.tiles.predicted import read_row_manifest, remove_strays
from voxmill.volumes.multiscale import ROOT, write_image
from voxmill.volumes.pyramid import Level, write_row
from voxmill.volumes.shard_files import StoredShard, shards_in
from voxmill.volumes.sharded import ShardedArray

NAME = "cells"


@job
def finish_labels(
    *, plan_path: str, manifest_paths: list[str], image_path: str, probability_path: str,
    pilot: bool = False, threads: int = 1,
) -> None:  # fmt: skip
    """Write the pyramid and the metadata of an image of labels.

    A voxel of a level has the most frequent label of those below it. The labels are listed under
    `labels/` of the probability's image, as OME-Zarr asks, by a link.

    Parameters
    ----------
    plan_path : path
    manifest_paths : list of path
        The lists of the shards of all slabs.
    image_path : path
        Folder of the image of labels.
    probability_path : path
        The image of the probability: its folder, or the `zarr.json` in it.
    pilot : bool
        Whether the lists are those of a part: then there is one level, and what lies outside of
        the part is left as it is.
    threads : int
        Rows of shards that are made at once.

    Raises
    ------
    VoxmillError
        If a list or a shard is missing or broken.
    """
    probability = Path(probability_path)
    if probability.name == ROOT:
        probability = probability.parent
    plan = read_plan(plan_path)
    levels, arrays = planned_labels(image_path, plan)
    if pilot:
        levels, arrays = levels[:1], arrays[:1]
    rows = [read_row_manifest(path, arrays[:1])[1] for path in manifest_paths]
    shards = [shard for row in rows for shard in row]
    _check(arrays[0], shards, manifest_paths, pilot, threads)
    digest = hashlib.sha256(json.dumps([asdict(shard) for shard in shards]).encode())
    for number in range(1, len(levels)):
        _build(arrays[number - 1], arrays[number], levels[number], threads)
    source = os.path.relpath(probability, image_path)
    write_image(
        image_path, arrays, levels, plan.volume.voxel_size_um, NAME, {"label": NAME}, "mode",
        {"meaning": "id of cells.csv, 0 for none", "shards_sha256": digest.hexdigest()},
        labels_of=source, origin_um=plan.volume.origin_um,
    )  # fmt: skip
    _list_labels(probability, Path(image_path))
    logger.info("%d levels, %d shards", len(levels), len(shards))


def _check(
    array: ShardedArray,
    shards: list[StoredShard],
    manifests: list[str],
    pilot: bool,
    threads: int,
) -> None:
    """Refuse shards that are missing or damaged; remove files of shards that are not listed."""
    wanted = array.shards[0] * array.shards[1] * array.shards[2]
    listed = {shard.key for shard in shards}
    if not pilot and len(listed) != wanted:
        raise VoxmillError(
            f"{array.path}: expected {wanted} shards in {manifests[0]} and the other lists, found "
            f"{len(shards)}. Delete the lists and run again."
        )
    remake = f"Delete {Path(manifests[0]).parent} and run again: labels are made anew."
    with ThreadPoolExecutor(threads) as executor:
        list(executor.map(lambda shard: array.verify(shard, remake), shards))
    remove_strays(array, shards, shards_in(array.path), pilot)


def _build(below: ShardedArray, array: ShardedArray, level: Level, threads: int) -> None:
    with ThreadPoolExecutor(threads) as executor:
        rows = range(array.shards[0])
        list(executor.map(lambda row: write_row(below, array, level, row, "mode"), rows))


def _list_labels(probability: Path, labels: Path) -> None:
    """List the labels in a group `labels` of the probability, with a link to them."""
    folder = probability / "labels"
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / NAME
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(labels, folder))
    group = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {"ome": {"version": "0.5", "labels": [NAME]}},
    }
    write_text(folder / "zarr.json", json.dumps(group, indent=1) + "\n")
