"""Measure the labelled cells of a volume."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from voxmill.cells.labels import radius_vox
from voxmill.cells.measurements import MEASURES
from voxmill.cells.measurements import measure_cells as measure
from voxmill.cells.outlines import object_reach
from voxmill.cells.table import PLACE, read_cells
from voxmill.config.objects import ObjectSettings
from voxmill.geometry import Triple, VoxelSize
from voxmill.runtime.files import writing
from voxmill.runtime.jobs import job, logger
from voxmill.volumes import LABEL_DTYPES, check_source, open_volume, read_header

BLOCK_VOX = 128


def reach_of_cell(settings: ObjectSettings, size: VoxelSize) -> Triple:
    """How far from its place a cell may have voxels: its seed may be half a radius away."""
    moved = radius_vox(settings.largest_radius_um / 2, size)
    z, y, x = (a + b + 1 for a, b in zip(object_reach(settings, size), moved, strict=True))
    return z, y, x


@job(outputs=("output_path",))
def measure_cells(
    *,
    cells_path: str,
    labels_path: str,
    source: Mapping[str, Any],
    settings: dict,
    output_path: str,
    fingerprint: str | None = None,
    threads: int = 1,
) -> None:
    """Write the table of cells with what was measured of each.

    Parameters
    ----------
    cells_path : path
    labels_path : path
        The `zarr.json` of the image of labels.
    source : dict
        Arguments of `voxmill.volumes.read_header` for the volume.
    settings : dict
        See `ObjectSettings`; those that the labels were made with.
    output_path : path
        The columns of cells.csv, with the volume of the labels in place of the detector's, and
        `voxmill.cells.measurements.MEASURES`.
    fingerprint : str, optional
        Of the volume when the run was planned; another one is refused.
    threads : int

    Raises
    ------
    VoxmillError
        If an input is missing or broken.
    """
    cells, checked = read_cells(cells_path), ObjectSettings.from_dict(settings)
    header = read_header(**source)
    size, placed = VoxelSize.of(header.voxel_size_um), cells
    if header.resampling is not None:
        placed = cells.assign(
            **dict(zip(PLACE, header.resampling.from_own(cells[PLACE]).T, strict=True))
        )
    labels_header = read_header(Path(labels_path).parent, dtypes=LABEL_DTYPES)
    with open_volume(labels_header) as labels, open_volume(header) as image:
        reach = reach_of_cell(checked, size)
        measured = measure(labels, image, placed, size, reach, BLOCK_VOX, threads)
    check_source(header, fingerprint)
    kept = [column for column in cells.columns if column not in MEASURES]
    table = pd.concat([cells[kept], measured], axis=1)
    for column, form in MEASURES.items():
        table[column] = table[column].map(
            lambda value, f=form: "" if value != value else f.format(value)
        )
    with writing(output_path) as scratch:
        table.to_csv(scratch, index=False, lineterminator="\n")
    without = int((measured["volume_um3"] == 0).sum())
    logger.info("%d cells measured, %d of them without a voxel of their own", len(table), without)
