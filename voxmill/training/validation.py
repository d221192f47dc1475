"""F1 on held-out boxes, with the detector of the workflow."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from voxmill.cells.find_cells import CellSettings, cells_of_volume
from voxmill.config.training import TrainingSettings
from voxmill.engine.backends import forward
from voxmill.evaluation.matching import incremental_matching, match_points
from voxmill.evaluation.thresholds import ThresholdCurve
from voxmill.geometry import Box
from voxmill.networks.heads import cell_map
from voxmill.networks.msdnet import MSDNet
from voxmill.training.sources import Source, points_in
from voxmill.volumes.blocks import ArrayVolume

# Candidates below this probability are not cells at any useful threshold.
LEAST_SCORE = 0.02
# Thresholds that are tried where a threshold changes the cells themselves.
THRESHOLDS = np.round(np.arange(0.04, 0.98, 0.04), 2)
BLOCK_VOX = 160
# Halo of a block: a larger one changes a validation score by far less than one cell does.
HALO_VOX = 24


def predict_box(
    network: MSDNet,
    source: Source,
    box: Box,
    normalisation: dict[str, Any],
    device: str,
    threads: int,
    block_vox: int = BLOCK_VOX,
) -> np.ndarray:
    """Predict a box block by block, each with its halo.

    Parameters
    ----------
    network : MSDNet
    source : Source
        The volume.
    box : Box
        In absolute voxels.
    normalisation : dict
        See `voxmill.networks.models.ModelCard`.
    device : str
    threads : int
    block_vox : int
        Longest edge of a block.

    Returns
    -------
    (outputs, z, y, x) float32 array
        Probabilities.
    """
    normalise = source.grey.normaliser(normalisation)
    result = np.empty((network.settings.outputs, *box.shape), np.float32)
    for block in box.blocks(block_vox):
        window = block.grow(HALO_VOX, within=Box.from_shape(source.volume.shape))
        grey = normalise(source.volume.read_window(*window), window.start)
        values = forward(network, grey[None], "auto", device, "float32", threads)
        kept = values[:, *block.relative_to(window.start).slices]
        result[:, *block.relative_to(box.start).slices] = kept
    return result


def find_points(
    probability: np.ndarray,
    settings: TrainingSettings,
    voxel_size_um: tuple[float, float, float],
    threshold: float,
    origin: Sequence[int] = (0, 0, 0),
) -> tuple[np.ndarray, np.ndarray]:
    """Find cells at a threshold.

    Parameters
    ----------
    probability : (z, y, x) float32 array
    settings : TrainingSettings
        Its `detector` holds the settings of the detector.
    voxel_size_um : (3,) float
    threshold : float
    origin : (3,) int
        Absolute voxel of the array's first voxel.

    Returns
    -------
    points : (N, 3) float array
        Centroids in absolute voxels.
    scores : (N,) float array
    """
    detector = CellSettings.from_dict({**settings.detector, "threshold": threshold})
    table = cells_of_volume(ArrayVolume(probability), detector, voxel_size_um)
    return table[["z_vox", "y_vox", "x_vox"]].to_numpy() + origin, table["score"].to_numpy()


def grown(box: Box, source: Source, settings: TrainingSettings) -> Box:
    """Grow a box by 1.5 cell diameters within the volume, so that it cuts no cell."""
    around = np.ceil(1.5 * settings.cell_diameter_um / np.array(source.voxel_size_um))
    return box.grow(around.astype(int).tolist(), within=Box.from_shape(source.volume.shape))


def validate(
    network: MSDNet,
    sources: list[Source],
    settings: TrainingSettings,
    device: str,
    threads: int,
    threshold: float | None = None,
) -> dict[str, Any]:
    """Compute F1 of all validation boxes together, by default at their best common threshold.

    Cells are found and matched in a box that is grown by 1.5 cell diameters, so that the box cuts
    no cell; those whose centroid lies in the box itself count.

    Parameters
    ----------
    network : MSDNet
    sources : list of Source
        Those with a validation box are used.
    settings : TrainingSettings
    device : str
        "cpu" or "cuda".
    threads : int
    threshold : float, optional
        Of a model that has one.

    Returns
    -------
    dict
        `threshold`, `f1`, `precision`, `recall`, and `volumes`: F1 of each at that threshold.
    """
    by_threshold = settings.detector["method"] != "maxima"
    runs = []
    for source in sources:
        if source.validation is None:
            continue
        outer = grown(source.validation, source, settings)
        outputs = predict_box(network, source, outer, settings.normalisation, device, threads)
        score = score_by_threshold if by_threshold else _score_by_candidate
        found = cell_map(settings.output_names, outputs)
        runs.append((source.name, *score(found, source, outer, settings)))
    return (summarise_thresholds if by_threshold else summarise)(runs, threshold)


def _score_by_candidate(
    probability: np.ndarray, source: Source, outer: Box, settings: TrainingSettings
) -> tuple[int, np.ndarray, np.ndarray]:
    """Count the true cells in the box and score its detections.

    Returns the number of true cells, the scores in descending order, and whether each detection
    raises the number of pairs.
    """
    size = source.voxel_size_um
    found, scores = find_points(probability, settings, size, LEAST_SCORE, outer.start)
    order = np.argsort(-scores, kind="stable")
    found, scores = found[order], scores[order]
    truth = points_in(source.points, outer)
    limit_um = cast(float, settings.max_distance_um)
    gains = incremental_matching(truth, found, limit_um, size)
    box = cast(Box, source.validation)
    own = box.contains(found)
    return len(points_in(truth, box)), scores[own], gains[own] >= 0


def score_by_threshold(
    probability: np.ndarray, source: Source, outer: Box, settings: TrainingSettings
) -> tuple[int, np.ndarray, np.ndarray]:
    """Count true cells, detections and matched detections in the validation box of a source.

    Parameters
    ----------
    probability : (z, y, x) float32 array
        Of the box `outer`.
    source : Source
        With a validation box.
    outer : Box
        The validation box with its surroundings.
    settings : TrainingSettings

    Returns
    -------
    true : int
        Cells of the ground truth.
    found, matched : (thresholds,) int arrays
        Detections, and those that match a cell, at each of `THRESHOLDS`.
    """
    box = cast(Box, source.validation)
    limit_um = cast(float, settings.max_distance_um)
    truth = points_in(source.points, outer)
    counts = []
    for threshold in THRESHOLDS:
        found, _ = find_points(probability, settings, source.voxel_size_um, threshold, outer.start)
        pairs = match_points(truth, found, limit_um, source.voxel_size_um)
        own = box.contains(found)
        counts.append((own.sum(), own[pairs[:, 1]].sum()))
    found_counts, matched_counts = np.array(counts).T
    return len(points_in(truth, box)), found_counts, matched_counts


def summarise_thresholds(
    runs: list[tuple[str, int, np.ndarray, np.ndarray]], threshold: float | None = None
) -> dict[str, Any]:
    """Choose the best common threshold of several volumes where it changes the cells themselves.

    Parameters
    ----------
    runs : list of (name, true cells, found, matched)
        Counts at each of `THRESHOLDS`.
    threshold : float, optional
        A chosen one; the counts are those of the nearest that was tried.

    Returns
    -------
    dict
        As `validate`.
    """
    true = sum(r[1] for r in runs)
    found = np.sum([r[2] for r in runs], axis=0)
    matched = np.sum([r[3] for r in runs], axis=0)
    curve = ThresholdCurve(THRESHOLDS, matched, found - matched, true)
    # The middle of the best thresholds is the safest choice.
    best = np.flatnonzero(curve.f1 >= curve.f1.max() - 1e-9)
    at = int(best[len(best) // 2])
    if threshold is not None:
        at = int(np.argmin(np.abs(THRESHOLDS - threshold)))
    return {
        "threshold": float(THRESHOLDS[at]) if threshold is None else threshold,
        "f1": float(curve.f1[at]),
        "precision": float(matched[at] / max(found[at], 1)),
        "recall": float(matched[at] / max(true, 1)),
        "volumes": {r[0]: float(2 * r[3][at] / max(r[2][at] + r[1], 1)) for r in runs},
    }


def summarise(
    runs: list[tuple[str, int, np.ndarray, np.ndarray]], threshold: float | None = None
) -> dict[str, Any]:
    """Choose the best common threshold of several volumes where it only selects cells.

    Parameters
    ----------
    runs : list of (name, true cells, scores, gained)
        Scores in descending order, and whether each detection raised the number of pairs.
    threshold : float, optional
        A chosen one.

    Returns
    -------
    dict
        As `validate`.
    """
    scores = np.concatenate([r[2] for r in runs])
    gained = np.concatenate([r[3] for r in runs])
    true = sum(r[1] for r in runs)
    order = np.argsort(-scores, kind="stable")
    curve = ThresholdCurve.of_detections(scores[order], gained[order], true)
    kept = len(scores) if threshold is None else int((scores >= threshold).sum())
    if not kept or not gained.any():
        zero = dict.fromkeys(("f1", "precision", "recall"), 0.0)
        chosen = 0.5 if threshold is None else threshold
        return {"threshold": chosen, **zero, "volumes": {r[0]: 0.0 for r in runs}}
    best = kept - 1
    if threshold is None:
        best = curve.best
        # Half-way to the next candidate: the threshold should not be exactly one cell's score.
        following = curve.thresholds[best + 1] if best + 1 < len(scores) else LEAST_SCORE
        threshold = float((curve.thresholds[best] + following) / 2)
    volumes = {}
    for name, count, own, own_gained in runs:
        above = own >= threshold
        volumes[name] = float(2 * own_gained[above].sum() / max(above.sum() + count, 1))
    return {
        "threshold": threshold,
        "f1": float(curve.f1[best]),
        "precision": float(curve.true_positives[best] / (best + 1)),
        "recall": float(curve.true_positives[best] / true),
        "volumes": volumes,
    }
