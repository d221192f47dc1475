"""Check the predictions of one slab of tiles."""

from pathlib import Path

from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import write_json
from voxmill.runtime.jobs import job
from voxmill.tiles.plan import read_plan
from voxmill.tiles.stitch_volume import open_core


@job
def check_slab(
    *, plan_path: str, slab: str, predictions_folder: str, model: str, output_path: str
) -> None:
    """Check that the predictions of one slab are the plan's, whole, and write their manifest.

    One job that reads thousands of inputs would make Snakemake slow; one that reads a manifest a
    slab does not. Here headers and lengths are checked; checksums are when pages are read.

    Parameters
    ----------
    plan_path : path
    slab : str
        Name of the slab: the tiles whose cores start at the same plane.
    predictions_folder : path
        Holds a file for each tile, under its name.
    model : str
        Digest of the weights that made the predictions.
    output_path : path
        JSON: name, path, core and checksum of each tile, so that it changes with any of them.
    """
    plan = read_plan(plan_path)
    tiles = [tile for tile in plan["tiles"] if tile["slab"] == slab]
    if not tiles:
        raise VoxmillError(f"{plan_path}: expected tiles of slab {slab}, found none.")
    entries = []
    for tile in tiles:
        entry = {key: tile[key] for key in ("name", "start", "stop")}
        entry["path"] = str(Path(predictions_folder) / f"{tile['name']}.tif")
        entry["keys"] = {"tile": tile["key"], "model": model}
        with open_core(entry) as pages:
            # Snakemake looks at a small file's content, not at its date.
            entries.append(entry | {"crc32": pages.crc32})
    write_json(output_path, {"tiles": entries})
