"""A certificate of a stitched volume: what the cutting into tiles changed at its seams.

Windows that straddle seams are predicted twice more: with a halo as large as the network can see
(up to a limit), and tile by tile, each part from what its tile holds. The difference is what the
cutting changed, before any rounding of what is stored. That the stored probability is the second
one, rounded, is looked at too, and cells are compared between the first, rounded in the same way,
and the stored one.
"""

import itertools
import math
from collections.abc import Callable, Iterable
from functools import partial
from itertools import product

import numpy as np

from voxmill.cells.foreground import Foreground, read_foreground
from voxmill.cells.label_slab import grown
from voxmill.cells.seeds import Seeds, quantised
from voxmill.config.cells import CellSettings
from voxmill.config.objects import ObjectSettings
from voxmill.config.prediction import PredictionSettings
from voxmill.config.seams import SeamSettings
from voxmill.engine.build import load
from voxmill.evaluation.seam_windows import (
    Labeller,
    compare_cells,
    seam_starts,
    sum_labels,
)
from voxmill.geometry import Box, Triple, VoxelSize
from voxmill.networks import models
from voxmill.prediction.box import on_claimed_device
from voxmill.prediction.measure_halo import richest_boxes
from voxmill.prediction.volume_predictor import VolumePredictor
from voxmill.runtime.checked import write_checked_json
from voxmill.runtime.jobs import job, logger, progress
from voxmill.tiles.grid import Grid
from voxmill.tiles.plan import Plan, read_plan
from voxmill.volumes import check_source, open_volume, read_header
from voxmill.volumes.grey_values import read_grey_values
from voxmill.volumes.probability import Probabilities, to_probability, to_stored
from voxmill.volumes.protocols import ReadableVolume
from voxmill.volumes.tissue import Tissue


def _is_predicted(box: Box, plan: Plan, tissue: Tissue) -> bool:
    """Whether each tile that a box touches holds tissue."""
    volume = Box.from_shape(plan.volume.shape)
    ranges = [
        range(start // edge * edge, stop, edge)
        for start, stop, edge in zip(*box, plan.tile_shape_vox, strict=True)
    ]
    cores = (Box.from_shape(plan.tile_shape_vox, start) for start in itertools.product(*ranges))
    return all(tissue.has_tissue(core.clip(volume)) for core in cores)


@job(outputs=("output_path",))
def measure_seams(
    *,
    volume: dict,
    plan_path: str,
    statistics_path: str,
    weights_path: str,
    probability_path: str,
    output_path: str,
    settings: dict,
    cells: dict,
    objects: dict,
    prediction: dict,
    threads: int,
    gpus: int = 0,
    part: list[Triple] | None = None,
) -> None:
    """Write how far the stitched volume is from one predicted with a far larger halo.

    Parameters
    ----------
    volume : dict
        Arguments of `voxmill.volumes.read_header`.
    plan_path, statistics_path, weights_path, probability_path : path
    output_path : path
        JSON: `largest` and `mean` absolute difference of probability before rounding, `rounding`,
        the largest that storing added, `cells` compared, `gained` and `lost` cells (absolute voxels
        of the file), labels that differ (`LABEL_COUNTS` of `voxmill.evaluation.seam_windows`, where
        the native code can be used), and the same for each window; `halo_vox` of the plan and
        `reference_halo_vox` of the windows. Windows and halos are in voxels of the tiles.
    settings, cells, objects, prediction : dict
        See `SeamSettings`, `CellSettings`, `ObjectSettings`, `PredictionSettings`.
    threads, gpus : int
    part : pair of (3,) int, optional
        Start and stop of a box of cores: only these are predicted.

    Raises
    ------
    VoxmillError
        If an input can't be read, a setting is out of range, or the device is absent.
    """
    checked, detector = SeamSettings.from_dict(settings), CellSettings.from_dict(cells)
    plan = read_plan(plan_path)
    grey = read_grey_values(statistics_path, plan.fingerprint)
    card, network = models.load_stored(weights_path)
    normalise = grey.normaliser(card.normalisation)
    header = read_header(**volume)
    check_source(header, plan.fingerprint)
    voxel_size_um = VoxelSize.of(header.voxel_size_um)
    box = Box(*part) if part else Box.from_shape(header.shape)
    size = tuple(min(checked.window_vox, n) for n in box.shape)
    number = checked.windows_of(len(Grid(box.shape, plan.tile_shape_vox)))
    starts = seam_starts(box.shape, plan.tile_shape_vox, size, 4 * number, checked.seed)
    starts += np.array(box.start)
    # Tiles without tissue are not predicted: beside them there is no seam to look at.
    kept = [_is_predicted(Box.from_shape(size, start), plan, grey.tissue) for start in starts]
    starts = starts[np.array(kept, bool)]
    claimed = on_claimed_device(PredictionSettings.from_dict(prediction), gpus, output_path)
    with (
        claimed as held,
        open_volume(header) as source,
        Probabilities(probability_path) as stitched,
    ):
        predictor = VolumePredictor(card, network, source, normalise, held, threads)
        halo = predictor.largest_halo()
        predict_box = partial(predictor.predict, halo_vox=halo)
        predict_cut = partial(predict_by_tiles, plan=plan, predictor=predictor, halo_vox=halo)
        boxes = richest_boxes(predictor.read, starts, size, number)
        label = _labels_of(source, ObjectSettings.from_dict(objects), voxel_size_um)
        rows = [
            compare_window(
                window, predict_box, predict_cut, stitched, detector, voxel_size_um, box, label
            )
            for window in progress(boxes, len(boxes), "window", "looking at seams")
        ]
    if header.resampling is not None:
        for row, key in product(rows, ("gained", "lost")):
            row[key] = header.resampling.to_own(np.reshape(row[key], (-1, 3))).tolist()
    check_source(header, plan.fingerprint)
    result = summarise(rows) | {"tolerance": checked.tolerance, "reference_halo_vox": halo}
    write_checked_json(output_path, result | {"halo_vox": list(plan.halo_vox), "windows": rows})
    logger.info(
        "%d windows at seams: largest difference %.3g, mean %.3g, by rounding %.3g; "
        "%d cells, %d gained, %d lost; labels: %s",
        len(rows), result["largest"], result["mean"], result["rounding"], result["cells"],
        len(result["gained"]), len(result["lost"]), sum_labels(rows) or "not compared",
    )  # fmt: skip


LabelWindow = Callable[[Box, Box], Labeller]
"""Surroundings and the core in them -> what labels the core."""


def _labels_of(
    image: ReadableVolume, settings: ObjectSettings, size: VoxelSize
) -> LabelWindow | None:
    """What labels windows by themselves; None without the native code.

    A window ends before what its labels depend on in the whole volume, but in the same place for
    both predictions that are compared.
    """
    if isinstance(load("objects"), str):
        return None

    def of_window(around: Box, core: Box) -> Labeller:
        of_image = settings.foreground == "image"
        levels = read_foreground(image, around, size, settings) if of_image else None

        def label(probability: np.ndarray, places: np.ndarray, ids: np.ndarray) -> np.ndarray:
            foreground = levels or Foreground(quantised(probability))
            whole = Box.from_shape(foreground.levels.shape)
            return grown(foreground, (0, 0, 0), core, whole, Seeds(places, ids), size, settings)

        return label

    return of_window


def predict_by_tiles(box: Box, plan: Plan, predictor: VolumePredictor, halo_vox: int) -> np.ndarray:
    """Probability of a box as the tiles' jobs predict it: no part sees more than its tile.

    Parameters
    ----------
    box : Box
        Absolute voxels.
    plan : Plan
    predictor : VolumePredictor
    halo_vox : int
        What is beyond it, inside of the tile, is left out.

    Returns
    -------
    (z, y, x) float32 array
    """
    probability = np.empty(box.shape, np.float32)
    for tile in plan.tiles:
        if tile.core.overlaps(box):
            part = box.clip(tile.core)
            seen = predictor.predict(part, halo_vox, within=tile.window)
            probability[part.relative_to(box.start).slices] = seen
    return probability


def compare_window(
    box: Box,
    predict_box: Callable[[Box], np.ndarray],
    predict_cut: Callable[[Box], np.ndarray],
    stitched: Probabilities,
    settings: CellSettings,
    voxel_size_um: Iterable[float],
    within: Box | None = None,
    label: LabelWindow | None = None,
) -> dict:
    """Compare one box of the stitched prediction with the same box predicted with a larger halo.

    Parameters
    ----------
    box : Box
        Absolute voxels.
    predict_box : callable
        Box -> (z, y, x) probability with the larger halo.
    predict_cut : callable
        Box -> (z, y, x) probability as by tiles, not rounded.
    stitched : Probabilities
        The stitched probability.
    settings : CellSettings
    voxel_size_um : (3,) float
    within : Box, optional
        The box of the stitched probability that was predicted, where it is not all.
    label : callable, optional
        What labels the window; then labels are compared too.

    Returns
    -------
    dict
        `start`, `stop`, `largest` and `mean` absolute difference, `rounding`, and what
        `compare_cells` gives.
    """
    # A cell of the box depends on what lies around it.
    reach_um = 2 * settings.min_distance_um + 4 * settings.smoothing_um
    margin = [math.ceil(reach_um / edge) + 2 for edge in voxel_size_um]
    around = box.grow(margin, within=within or Box.from_shape(stitched.shape))
    reference, found = predict_box(around), stitched.read_window(*around)
    core = box.relative_to(around.start)
    cut = predict_cut(box)
    difference = np.abs(reference[core.slices] - cut)
    rounded = to_probability(to_stored(reference, stitched.dtype))
    labeller = None if label is None else label(around, core)
    cells = compare_cells(rounded, found, settings, voxel_size_um, core, labeller)
    origin = np.array(around.start)
    cells |= {
        key: (np.reshape(cells[key], (-1, 3)) + origin).tolist() for key in ("gained", "lost")
    }
    start, stop = box.to_lists()
    return {
        "start": start,
        "stop": stop,
        "largest": float(difference.max()),
        "mean": float(difference.mean()),
        "rounding": float(np.abs(cut - found[core.slices]).max()),
        **cells,
    }


def summarise(rows: list[dict]) -> dict:
    """The windows of `compare_window` together: the largest, the mean, all that is counted."""
    return {
        "largest": max((row["largest"] for row in rows), default=0.0),
        "mean": float(np.mean([row["mean"] for row in rows])) if rows else 0.0,
        "rounding": max((row["rounding"] for row in rows), default=0.0),
        "cells": sum(row["cells"] for row in rows),
        "gained": [cell for row in rows for cell in row["gained"]],
        "lost": [cell for row in rows for cell in row["lost"]],
        **sum_labels(rows),
    }
