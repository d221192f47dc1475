"""Which places of a volume are worth a look: the least certain cells and the likeliest misses."""

import dataclasses
from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from voxmill.cells.find_cells import cells_of_volume
from voxmill.cells.table import PLACE, PLACE_UM
from voxmill.config.cells import CellSettings
from voxmill.geometry import VoxelSize
from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.protocols import ReadableVolume

# Of the threshold: maxima below it are no cells for anybody.
LEAST_SHARE = 0.2


def suggest(
    probability: ReadableVolume,
    cells: pd.DataFrame,
    settings: CellSettings,
    voxel_size_um: Iterable[float],
    number: int,
    threads: int = 1,
) -> pd.DataFrame:
    """The places whose check teaches most: those nearest to the threshold on both sides.

    Uncertainty sampling (Lewis & Gale, SIGIR 1994), for cells and for what was not taken for one.

    Parameters
    ----------
    probability : ReadableVolume
    cells : pandas.DataFrame
        The cells that were found in it, as `voxmill.cells.table.read_cells` gives them.
    settings : CellSettings
        What they were found with.
    voxel_size_um : (3,) float
        Edge lengths of a voxel, z, y, x.
    number : int
        How many of each kind at most.
    threads : int
        Blocks worked on at once.

    Returns
    -------
    pandas.DataFrame
        Columns z_vox ... x_um, score and kind: "uncertain" (a cell that was found with a low score)
        or "missed" (a maximum below the threshold and no nearer to a cell than two cells may be),
        the nearest to the threshold first.

    Raises
    ------
    VoxmillError
        If the number is below 1, and as `cells_of_volume`.
    """
    if number < 1:
        raise VoxmillError(f"number: expected 1 or more, found {number}")
    size = VoxelSize.of(voxel_size_um)
    lower = dataclasses.replace(
        settings, method="maxima", threshold=LEAST_SHARE * settings.threshold, min_score=0
    )
    candidates = cells_of_volume(probability, lower, size, threads)
    free = (candidates["score"] < settings.threshold).to_numpy()
    if len(cells) and len(candidates):
        nearest, _ = KDTree(cells[PLACE_UM]).query(candidates[PLACE_UM])
        free = free & (nearest >= settings.min_distance_um)
    candidates = candidates.iloc[np.flatnonzero(free)]
    parts = [
        table.assign(kind=kind, gap=np.abs(table["score"] - settings.threshold)).nsmallest(
            number, "gap"
        )
        for kind, table in (("uncertain", cells), ("missed", candidates))
    ]
    columns = [*PLACE, *PLACE_UM, "score", "kind"]
    both = pd.concat(parts).sort_values(["gap", *PLACE_UM], ignore_index=True)
    return both[columns]
