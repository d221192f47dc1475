"""Check the predictions of one slab of tiles."""

from pathlib import Path

from voxmill.geometry import Box, Triple
from voxmill.runtime.jobs import job
from voxmill.tiles.plan import read_plan
from voxmill.tiles.slab import PredictedCore, write_slab


@job
def check_slab(
    *,
    plan_path: str,
    slab: str,
    predictions_folder: str,
    model: str,
    output_path: str,
    part: list[Triple] | None = None,
) -> None:
    """Check that the predictions of one slab are complete and the plan's; write their manifest.

    A job that reads thousands of inputs would make Snakemake slow; one that reads a manifest for
    each slab does not. Headers and lengths are checked here, checksums where pages are read.

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
    part : pair of (3,) int, optional
        Start and stop of a box of cores: only these are predicted.

    Raises
    ------
    VoxmillError
        If the plan has no such slab, or a prediction is missing, cut short, of another plan or of
        another model.
    """
    cores = [
        PredictedCore(
            name=tile.name,
            core=tile.core,
            path=str(Path(predictions_folder) / f"{tile.name}.tif"),
            keys={"tile": tile.key, "model": model},
        )
        for tile in read_plan(plan_path).slab(slab)
        if part is None or tile.core.overlaps(Box(*part))
    ]
    write_slab(output_path, cores)
