"""Assemble predicted cores into one volume, plane by plane."""

import contextlib
import time
from collections.abc import Iterator

import numpy as np

from voxmill.runtime.files import read_json
from voxmill.runtime.jobs import job, log_rate, progress
from voxmill.tiles.plan import REMAKE, read_plan
from voxmill.volumes import tile_pages, write_planes


def assemble_slab(tiles: list[dict], pages: dict, plane_shape: tuple) -> Iterator[np.ndarray]:
    """Planes of one slab of tiles from the planes of the tiles' cores.

    Parameters
    ----------
    tiles : list of dict
        `name`, `start` and `stop` (z, y, x) of each core; all span the same planes and together
        they cover each plane once.
    pages : dict
        For each tile's name an object whose `read(index)` is a (y, x) plane of its core.
    plane_shape : (2,) int

    Yields
    ------
    (y, x) array
        A fresh plane. One plane is in memory at a time.
    """
    for index in range(tiles[0]["stop"][0] - tiles[0]["start"][0]):
        parts = {tile["name"]: pages[tile["name"]].read(index) for tile in tiles}
        plane = np.empty(plane_shape, parts[tiles[0]["name"]].dtype)
        for tile in tiles:
            (_, y0, x0), (_, y1, x1) = tile["start"], tile["stop"]
            plane[y0:y1, x0:x1] = parts[tile["name"]]
        yield plane


@job
def stitch_volume(
    *, plan_path: str, manifest_paths: list[str], output_path: str, compression: str
) -> None:
    """Stream the predictions named in manifests into one OME-BigTIFF.

    Parameters
    ----------
    plan_path : path
    manifest_paths : list of path
        What `check_slab` wrote.
    output_path : path
        Probability, float32, with axes and voxel size in its metadata.
    compression : str
        Of the output: "none" or "zlib".
    """
    start = time.perf_counter()
    plan = read_plan(plan_path)
    shape = tuple(plan["source"]["shape"])
    manifests = [read_json(path, "slab manifest")["tiles"] for path in manifest_paths]
    planes = progress(_planes(manifests, shape), shape[0], "plane", "stitching")
    compression = None if compression == "none" else compression
    write_planes(
        output_path, planes, shape, np.float32, plan["source"]["voxel_size_um"], compression
    )
    log_rate("stitched", int(np.prod(shape)), time.perf_counter() - start)


def _planes(manifests: list[list[dict]], shape: tuple) -> Iterator[np.ndarray]:
    for tiles in sorted(manifests, key=lambda tiles: tiles[0]["start"][0]):
        # Only this slab's files are open: a process may not hold thousands.
        with contextlib.ExitStack() as stack:
            pages = {tile["name"]: stack.enter_context(open_core(tile)) for tile in tiles}
            yield from assemble_slab(tiles, pages, shape[1:])


def open_core(tile: dict):
    shape = tuple(b - a for a, b in zip(tile["start"], tile["stop"], strict=True))
    return tile_pages(tile["path"], shape, np.float32, tile["keys"], REMAKE)
