"""Make one image of checked shards: the metadata, last of all."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from voxmill.runtime.jobs import job, logger
from voxmill.tiles.plan import read_plan
from voxmill.tiles.predicted import PlannedImage, check_complete, read_row_manifest
from voxmill.volumes.multiscale import write_image
from voxmill.volumes.probability import meaning


@job
def stitch_volume(
    *,
    plan_path: str,
    manifest_paths: list[str],
    image_path: str,
    storage: Mapping[str, str],
    network: str,
    model: str,
    pilot: bool = False,
) -> None:
    """Write the metadata that make the shards of all levels one OME-Zarr image.

    Parameters
    ----------
    plan_path : path
    manifest_paths : list of path
        The lists of the shards of all rows of all levels.
    image_path : path
        Folder of the image: probability, with axes, voxel size and the meaning of a stored value
        in its metadata. Files of shards that are not of the image are removed.
    storage : dict
        `dtype` and `compression` of the stored probabilities.
    network, model : str
        Name of the network and digest of its weights, for the metadata.
    pilot : bool
        Whether the lists are those of a part, at the finest level, the only one then: what lies
        outside of it is left as it is.

    Raises
    ------
    VoxmillError
        If a list is broken, of another plan, or names a shard that is not there.
    """
    plan = read_plan(plan_path)
    image = PlannedImage.planned(image_path, plan, storage)
    levels = image.levels[:1] if pilot else image.levels
    arrays = image.arrays[: len(levels)]
    rows = [read_row_manifest(path, arrays) for path in manifest_paths]
    digest, stored = hashlib.sha256(), 0
    for array in arrays:
        shards = [shard for of, row in rows if of is array for shard in row]
        check_complete(array, shards, pilot)
        digest.update(json.dumps([array.digest, *map(asdict, shards)]).encode())
        stored += sum(shard.bytes for shard in shards)
    write_image(
        image_path, arrays, levels, plan.volume.voxel_size_um,
        network, {"label": "probability", "window": _window(storage["dtype"])}, "mean",
        {
            "network": network,
            "model": model,
            "meaning": meaning(storage["dtype"]),
            "shards_sha256": digest.hexdigest(),
        },
        origin_um=plan.volume.origin_um,
    )  # fmt: skip
    logger.info("%d levels, %d bytes in all, %s", len(levels), stored, dict(storage))


def _window(dtype: str) -> dict[str, Any]:
    """The grey values that viewers show: 0 to 1, as they are stored."""
    most = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1
    return {"min": 0, "max": int(most), "start": 0, "end": int(most)}
