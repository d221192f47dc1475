"""A certificate of stored labels: what the cutting into tiles changed at its seams.

Windows that straddle seams are labelled once more, each in one piece and with all the surroundings
that its labels depend on, from the same cells and the same foreground. Every voxel of the stored
labels should have the same label.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from voxmill.cells.foreground import read_foreground
from voxmill.cells.label_slab import grown, needed_margin, open_foreground, read_seeds
from voxmill.config.objects import ObjectSettings
from voxmill.config.seams import SeamSettings
from voxmill.evaluation.seam_windows import compare_labels, seam_starts, sum_labels
from voxmill.geometry import Box, Triple, VoxelSize
from voxmill.prediction.measure_halo import richest_boxes
from voxmill.runtime.checked import write_checked_json
from voxmill.runtime.jobs import job, logger, progress
from voxmill.tiles.grid import Grid
from voxmill.tiles.plan import read_plan
from voxmill.volumes import LABEL_DTYPES, check_source, open_volume, read_header


@job(outputs=("output_path",))
def measure_label_seams(
    *,
    plan_path: str,
    cells_path: str,
    foreground_path: str,
    source: Mapping[str, Any] | None,
    labels_path: str,
    output_path: str,
    settings: dict,
    objects: dict,
    part: list[Triple] | None = None,
    fingerprint: str | None = None,
) -> None:
    """Write how far stored labels are from those of windows that are labelled in one piece.

    Parameters
    ----------
    plan_path, cells_path : path
    foreground_path, source, fingerprint
        As of `voxmill.cells.label_slab.label_slab`.
    labels_path : path
        The `zarr.json` of the image of labels.
    output_path : path
        JSON: `LABEL_COUNTS` of `voxmill.evaluation.seam_windows` over all windows, and for each of
        them, with its `start` and `stop` (voxels of the tiles).
    settings, objects : dict
        See `SeamSettings`, `ObjectSettings`.
    part : pair of (3,) int, optional
        Start and stop of a box of cores: only these are labelled.

    Raises
    ------
    VoxmillError
        If an input is missing or broken, or there is no compiler for the native code.
    """
    checked, grow = SeamSettings.from_dict(settings), ObjectSettings.from_dict(objects)
    plan = read_plan(plan_path)
    size, whole = VoxelSize.of(plan.volume.voxel_size_um), Box.from_shape(plan.volume.shape)
    seeds = read_seeds(cells_path, plan.volume.resampling)
    within = Box(*part) if part else whole
    edges = [min(checked.window_vox, n) for n in within.shape]
    number = checked.windows_of(len(Grid(within.shape, plan.tile_shape_vox)))
    starts = seam_starts(within.shape, plan.tile_shape_vox, edges, 4 * number, checked.seed)
    labels_header = read_header(Path(labels_path).parent, dtypes=LABEL_DTYPES)
    with (
        open_volume(labels_header) as labels,
        open_foreground(foreground_path, source) as foreground,
    ):

        def labelled(box: Box) -> np.ndarray:
            return labels.read_window(*box) > 0

        def compare(box: Box) -> dict[str, Any]:
            window = box.grow(needed_margin(grow, size), within=whole)
            values = read_foreground(foreground, window, size, grow)
            near = seeds.near(window)
            at_once = grown(values, window.start, box, whole, near, size, grow)
            start, stop = box.to_lists()
            found = labels.read_window(*box)
            return {"start": start, "stop": stop, **compare_labels(at_once, found)}

        # Where about half of the voxels are labelled there are most outlines.
        boxes = richest_boxes(labelled, starts + np.array(within.start), edges, number)
        rows = [compare(box) for box in progress(boxes, len(boxes), "window", "labels at seams")]
    if source is not None:
        check_source(read_header(**source), fingerprint)
    write_checked_json(output_path, sum_labels(rows) | {"windows": rows})
    logger.info("%d windows at seams: %s", len(rows), sum_labels(rows))
