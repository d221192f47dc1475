"""Make one image of labelled slabs and their pyramid: the metadata, last of all."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from voxmill.cells.colours import listed_colours
from voxmill.cells.label_slab import LISTED, STORAGE, read_seeds
from voxmill.runtime.files import read_json, write_text
from voxmill.runtime.jobs import job, logger
from voxmill.runtime.receipts import remove_receipts, write_receipts
from voxmill.tiles.plan import read_plan
from voxmill.tiles.predicted import PlannedImage, check_complete, read_row_manifest
from voxmill.volumes.multiscale import ROOT, write_image
from voxmill.volumes.shard_files import StoredShard
from voxmill.volumes.sharded import ShardedArray

NAME = "cells"


@job
def finish_labels(
    *, plan_path: str, cells_path: str, manifest_paths: list[str], image_path: str,
    probability_path: str, pilot: bool = False, threads: int = 1,
) -> None:  # fmt: skip
    """Write the metadata that make the shards of all levels one OME-Zarr image of labels.

    The labels are listed under `labels/` of the probability's image, as OME-Zarr asks, by links.

    Parameters
    ----------
    plan_path : path
    cells_path : path
        The table of the cells whose ids the labels are.
    manifest_paths : list of path
        The lists of the shards of all slabs, and of all rows of the levels above.
    image_path : path
        Folder of the image of labels. Files of shards that are not of the image are removed.
    probability_path : path
        The image of the probability: its folder, or the `zarr.json` in it.
    pilot : bool
        Whether the lists are those of a part: then there is one level, and what lies outside of
        the part is left as it is.
    threads : int
        Shards of the finest level that are compared with their checksums at once.

    Raises
    ------
    VoxmillError
        If a list or a shard is missing or broken, or the table of cells.
    """
    probability = Path(probability_path)
    if probability.name == ROOT:
        probability = probability.parent
    plan = read_plan(plan_path)
    image = PlannedImage.planned(image_path, plan, STORAGE)
    levels = image.levels[:1] if pilot else image.levels
    arrays = image.arrays[: len(levels)]
    rows = [read_row_manifest(path, arrays) for path in manifest_paths]
    digest, count = hashlib.sha256(), 0
    for number, array in enumerate(arrays):
        shards = [shard for of, row in rows if of is array for shard in row]
        check_complete(array, shards, pilot)
        if number == 0:
            _verify(array, shards, Path(manifest_paths[0]).parent, threads)
        digest.update(json.dumps([array.digest, *map(asdict, shards)]).encode())
        count += len(shards)
    ids = read_seeds(cells_path).ids.tolist()
    image_label: dict[str, Any] = {"source": {"image": os.path.relpath(probability, image_path)}}
    if colours := listed_colours(ids):
        image_label["colors"] = colours
    write_image(
        image_path, arrays, levels, plan.volume.voxel_size_um, NAME, {"label": NAME}, "mode",
        {"meaning": "id of cells.csv, 0 for none", "shards_sha256": digest.hexdigest()},
        image_label=image_label, origin_um=plan.volume.origin_um,
    )  # fmt: skip
    _list_labels(probability, Path(image_path), len(arrays))
    logger.info("%d cells, %d levels, %d shards", len(ids), len(levels), count)


def _verify(array: ShardedArray, shards: list[StoredShard], lists: Path, threads: int) -> None:
    remake = f"Delete {lists} and run again: labels are made anew."
    with ThreadPoolExecutor(threads) as executor:
        list(executor.map(lambda shard: array.verify(shard, remake), shards))


def _list_labels(probability: Path, labels: Path, count: int) -> None:
    """List labels of a number of levels in a group `labels` of the probability.

    The group holds a folder of links. Its metadata are a file of their own beside the labels',
    as the way to the image is another one from there.
    """
    folder = probability / "labels" / NAME
    listing = [labels / LISTED, folder.with_name(ROOT)]
    remove_receipts(listing)
    content = read_json(labels / ROOT, "metadata of labels")
    content["attributes"]["ome"]["image-label"]["source"] = {"image": "../../"}
    write_text(labels / LISTED, json.dumps(content, indent=1) + "\n")
    if folder.is_symlink():
        folder.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    for link in folder.iterdir():
        link.unlink()
    for name in map(str, range(count)):
        (folder / name).symlink_to(os.path.relpath(labels / name, folder))
    (folder / ROOT).symlink_to(os.path.relpath(labels / LISTED, folder))
    group = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {"ome": {"version": "0.5", "labels": [NAME]}},
    }
    write_text(folder.with_name(ROOT), json.dumps(group, indent=1) + "\n")
    write_receipts(listing, "finish_labels", "")
