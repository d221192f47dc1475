"""Assemble predicted cores into one volume, plane by plane."""

import contextlib
import time
from collections.abc import Iterator

import numpy as np

from voxmill.errors import VoxmillError
from voxmill.files import read_json, write_json, writing
from voxmill.jobs import job, log_rate, progress
from voxmill.planning import read_plan
from voxmill.volumes import PlaneWriter, read_tile, tile_pages


def assemble_slab(tiles: list[dict], pages: dict, plane_shape: tuple) -> Iterator[np.ndarray]:
    """Planes of one slab of tiles from the planes of the tiles' cores.

    Parameters
    ----------
    tiles : list of dict
        `name`, `start` and `stop` (z, y, x) of each core; all span the same planes and together
        they cover each plane once.
    pages : dict
        For each tile's name a sequence of its core's (y, x) planes.
    plane_shape : (2,) int

    Yields
    ------
    (y, x) array
        A fresh plane. One plane is in memory at a time.
    """
    for index in range(tiles[0]["stop"][0] - tiles[0]["start"][0]):
        parts = {tile["name"]: pages[tile["name"]][index] for tile in tiles}
        plane = np.empty(plane_shape, parts[tiles[0]["name"]].dtype)
        for tile in tiles:
            (_, y0, x0), (_, y1, x1) = tile["start"], tile["stop"]
            plane[y0:y1, x0:x1] = parts[tile["name"]]
        yield plane


@job
def check_slab(
    *, plan_path: str, slab: str, prediction_paths: list[str], model: str, output_path: str
) -> None:
    """Verify the predictions of one slab of tiles and write their manifest.

    One job that reads thousands of inputs would make Snakemake slow; one that reads a manifest a
    slab does not.

    Parameters
    ----------
    plan_path : path
    slab : str
        Name of the slab: the tiles whose cores start at the same plane.
    prediction_paths : list of path
        Of the slab's tiles, in the plan's order.
    model : str
        Digest of the weights that made the predictions.
    output_path : path
        JSON: name, path and core of each tile.
    """
    plan = read_plan(plan_path)
    tiles = [tile for tile in plan["tiles"] if tile["slab"] == slab]
    if len(tiles) != len(prediction_paths):
        raise VoxmillError(
            f"slab {slab}: expected {len(tiles)} predictions as in {plan_path}, "
            f"found {len(prediction_paths)}"
        )
    pairs = list(zip(tiles, prediction_paths, strict=True))
    for tile, path in progress(pairs, len(pairs), "tile", f"checking {slab}"):
        shape = tuple(b - a for a, b in zip(tile["start"], tile["stop"], strict=True))
        read_tile(
            path, shape, "float32", {"tile": tile["key"], "model": model}, f"snakemake {path}"
        )
    entries = [
        {"name": tile["name"], "start": tile["start"], "stop": tile["stop"], "path": path}
        for tile, path in pairs
    ]
    write_json(output_path, {"tiles": entries})


@job
def stitch_volume(
    *, plan_path: str, manifest_paths: list[str], output_path: str, compression: str | None
) -> None:
    """Stream the predictions named in manifests into one OME-BigTIFF.

    Parameters
    ----------
    plan_path : path
    manifest_paths : list of path
        What `check_slab` wrote.
    output_path : path
        Probability, float32, with axes and voxel size in its metadata.
    compression : str or None
        Of the output: None or "zlib".
    """
    start = time.perf_counter()
    plan = read_plan(plan_path)
    shape = tuple(plan["source"]["shape"])
    manifests = [read_json(path, "slab manifest")["tiles"] for path in manifest_paths]
    with (
        writing(output_path) as scratch,
        PlaneWriter(
            scratch, shape, np.float32, plan["source"]["voxel_size_um"], compression=compression
        ) as writer,
    ):
        for plane in progress(_planes(manifests, shape), shape[0], "plane", "stitching"):
            writer.write(plane)
    log_rate("stitched", int(np.prod(shape)), time.perf_counter() - start)


def _planes(manifests: list[list[dict]], shape: tuple) -> Iterator[np.ndarray]:
    for tiles in sorted(manifests, key=lambda tiles: tiles[0]["start"][0]):
        # Only this slab's files are open: a process may not hold thousands.
        with contextlib.ExitStack() as stack:
            pages = {t["name"]: stack.enter_context(tile_pages(t["path"])) for t in tiles}
            yield from assemble_slab(tiles, pages, shape[1:])
