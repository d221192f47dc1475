"""OME-Zarr 0.5 images of sharded levels: the group's metadata, which are written last.

Without them no reader takes the folder for an image, so that one that is half made, or of which a
shard was written anew, does not look whole.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from voxmill.runtime.files import write_text
from voxmill.runtime.receipts import remove_receipts, write_receipts
from voxmill.volumes.pyramid import Level
from voxmill.volumes.sharded import ShardedArray

ROOT = "zarr.json"
"""The file of a group's metadata."""


def level_arrays(
    path: str | Path, levels: Sequence[Level], dtype: str, core_vox: Sequence[int], compression: str
) -> list[ShardedArray]:
    """The arrays of an image's levels: folders 0, 1, ... with the same shards at each level.

    Parameters
    ----------
    path : path
        The image's folder.
    levels : sequence of Level
    dtype : str
    core_vox : (3,) int
        Largest core of the tiles, voxels: the shards of level 0 are theirs.
    compression : str
        "zstd" or "none".
    """
    z, y, x = core_vox
    first = ShardedArray.of_cores(Path(path, "0"), levels[0].shape, dtype, (z, y, x), compression)
    return [
        ShardedArray(
            str(Path(path, str(number))), level.shape, dtype, first.shard_vox, first.chunk_vox,
            compression,
        )
        for number, level in enumerate(levels)
    ]  # fmt: skip


def write_image(
    path: str | Path,
    arrays: Sequence[ShardedArray],
    levels: Sequence[Level],
    voxel_size_um: Sequence[float],
    name: str,
    channel: dict[str, Any],
    how: str,
    extra: dict[str, Any],
    image_label: dict[str, Any] | None = None,
    origin_um: Sequence[float] = (0.0, 0.0, 0.0),
) -> None:
    """Write the metadata of all levels, then those of the image.

    Parameters
    ----------
    path : path
        The image's folder.
    arrays, levels : sequences of the same length
        Their shards are written.
    voxel_size_um : (3,) float
        Of level 0, z, y, x.
    name : str
        Of the image; viewers show it before the channel's.
    channel : dict
        `label`, and the `window` of grey values that viewers show (OME's `omero.channels`).
    how : str
        How levels are reduced: "mean" or "mode".
    extra : dict
        JSON content, kept under `voxmill`.
    image_label : dict, optional
        Of an image of labels, which has no grey values: OME's `image-label`, such as its `source`
        and `colors`.
    origin_um : (3,) float
        Place of level 0's first voxel, where that of the volume's file is 0.
    """
    root = Path(path, ROOT)
    # A file of another content has no receipt meanwhile: it would count as damaged.
    remove_receipts([root, *(Path(array.path, ROOT) for array in arrays)])
    written = [array.write_metadata() for array in arrays]
    placed = [_placed(level, voxel_size_um, origin_um) for level in levels]
    multiscale = {
        "name": name,
        "type": how,
        "axes": [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"],
        "datasets": [
            {"path": Path(array.path).name, "coordinateTransformations": placed[index]}
            for index, array in enumerate(arrays)
        ],
    }
    shown = {"color": "FFFFFF", "active": True, "coefficient": 1, "family": "linear"}
    ome: dict[str, Any] = {"version": "0.5", "multiscales": [multiscale]}
    if image_label is None:
        ome["omero"] = {"channels": [shown | {"inverted": False} | channel]}
    else:
        ome["image-label"] = {"version": "0.5", **image_label}
    group = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {"ome": ome, "voxmill": extra},
    }
    write_text(root, json.dumps(group, indent=1) + "\n")
    write_receipts([*written, root], f"the job that made {Path(path).name}", "")


def _placed(
    level: Level, voxel_size_um: Sequence[float], origin_um: Sequence[float]
) -> list[dict[str, Any]]:
    """Scale, and the place of the first voxel's centre, micrometres."""
    sizes = list(zip(level.factors, map(float, voxel_size_um), origin_um, strict=True))
    return [
        {"type": "scale", "scale": [f * edge for f, edge, _ in sizes]},
        {"type": "translation", "translation": [o + (f - 1) / 2 * edge for f, edge, o in sizes]},
    ]
