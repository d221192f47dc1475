"""F1 on held-out boxes, with the detector of the workflow."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from voxmill.cells.find_cells import CellSettings, cells_of_volume
from voxmill.config.training import TrainingSettings
from voxmill.engine.backends import forward
from voxmill.evaluation.matching import incremental_matching, match_points
from voxmill.networks.msdnet import MSDNet
from voxmill.tiles.grid import grow, inside
from voxmill.training.sources import Box, Source, are_in, points_in
from voxmill.volumes.blocks import ArrayVolume, block_list
from voxmill.volumes.normalisation import normalise

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

    Returns
    -------
    (outputs, z, y, x) float32 array
        Probabilities.
    """
    start, stop = np.array(box)
    result = np.empty((network.settings.outputs, *(stop - start)), np.float32)
    for low, high in block_list(stop - start, BLOCK_VOX):
        block = _triple(start + low), _triple(start + high)
        outer = grow(*block, (HALO_VOX,) * 3, source.volume.shape)
        grey = normalise(source.volume.read_window(*outer), source.statistics, normalisation)
        values = forward(network, grey[None], "auto", device, "float32", threads)
        inner = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        result[(slice(None), *inner)] = values[(slice(None), *inside(*block, outer[0]))]
    return result


def _triple(values: np.ndarray) -> tuple[int, int, int]:
    z, y, x = (int(value) for value in values)
    return z, y, x


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
        Its `finder` holds the settings of the detector.
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
    detector = CellSettings.from_dict({**settings.finder, "threshold": threshold})
    table = cells_of_volume(ArrayVolume(probability), detector, voxel_size_um)
    return table[["z_vox", "y_vox", "x_vox"]].to_numpy() + origin, table["score"].to_numpy()


def validate(
    network: MSDNet,
    sources: list[Source],
    settings: TrainingSettings,
    device: str,
    threads: int,
) -> dict[str, Any]:
    """Compute F1 of all validation boxes together, at their best common threshold.

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

    Returns
    -------
    dict
        `threshold`, `f1`, `precision`, `recall`, and `volumes`: F1 of each at that threshold.
    """
    by_threshold = settings.finder["method"] != "maxima"
    runs = []
    for source in sources:
        if source.validation is None:
            continue
        around = np.ceil(1.5 * settings.cell_diameter_um / np.array(source.voxel_size_um))
        outer = grow(*source.validation, _triple(around), source.volume.shape)
        probability = predict_box(network, source, outer, settings.normalisation, device, threads)[
            0
        ]
        score = score_by_threshold if by_threshold else _score_by_candidate
        runs.append((source.name, *score(probability, source, outer, settings)))
    return (summarise_thresholds if by_threshold else summarise)(runs)


def _score_by_candidate(
    probability: np.ndarray, source: Source, outer: Box, settings: TrainingSettings
) -> tuple[int, np.ndarray, np.ndarray]:
    """Number of true cells in the box; scores of the detections in it, in descending order; and
    whether each detection raises the number of pairs."""
    found, scores = find_points(probability, settings, source.voxel_size_um, LEAST_SCORE, outer[0])
    order = np.argsort(-scores, kind="stable")
    found, scores = found[order], scores[order]
    truth = points_in(source.points, outer)
    gains = incremental_matching(truth, found, settings.max_distance_um, source.voxel_size_um)
    box = cast(Box, source.validation)
    own = are_in(found, box)
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
    truth = points_in(source.points, outer)
    counts = []
    for threshold in THRESHOLDS:
        found, _ = find_points(probability, settings, source.voxel_size_um, threshold, outer[0])
        pairs = match_points(truth, found, settings.max_distance_um, source.voxel_size_um)
        own = are_in(found, box)
        counts.append((own.sum(), own[pairs[:, 1]].sum()))
    found_counts, matched_counts = np.array(counts).T
    return len(points_in(truth, box)), found_counts, matched_counts


def summarise_thresholds(runs: list[tuple[str, int, np.ndarray, np.ndarray]]) -> dict:
    """Best common threshold of several volumes, where each threshold gives other cells.

    Parameters
    ----------
    runs : list of (name, true cells, found, matched)
        Counts at each of `THRESHOLDS`.

    Returns
    -------
    dict
        As `validate`.
    """
    true = sum(r[1] for r in runs)
    found, matched = (sum(r[i] for r in runs) for i in (2, 3))
    f1 = 2 * matched / np.maximum(found + true, 1)
    # The middle of the best thresholds: a choice at an end of them would be a matter of luck.
    best = np.flatnonzero(f1 >= f1.max() - 1e-9)
    at = int(best[len(best) // 2])
    return {
        "threshold": float(THRESHOLDS[at]),
        "f1": float(f1[at]),
        "precision": float(matched[at] / max(found[at], 1)),
        "recall": float(matched[at] / max(true, 1)),
        "volumes": {r[0]: float(2 * r[3][at] / max(r[2][at] + r[1], 1)) for r in runs},
    }


def summarise(runs: list[tuple[str, int, np.ndarray, np.ndarray]]) -> dict:
    """Best common threshold of several volumes.

    Parameters
    ----------
    runs : list of (name, true cells, scores, gained)
        Scores in descending order, and whether each detection raised the number of pairs.

    Returns
    -------
    dict
        As `validate`.
    """
    scores = np.concatenate([r[2] for r in runs])
    gained = np.concatenate([r[3] for r in runs])
    true = sum(r[1] for r in runs)
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(gained[order])
    if not len(scores) or not hits[-1]:
        zero = dict.fromkeys(("f1", "precision", "recall"), 0.0)
        return {"threshold": 0.5, **zero, "volumes": {r[0]: 0.0 for r in runs}}
    f1 = 2 * hits / (np.arange(1, len(scores) + 1) + true)
    best = int(np.argmax(f1))
    # Half way to the next candidate: the threshold should not sit on one cell's score.
    following = scores[best + 1] if best + 1 < len(scores) else LEAST_SCORE
    threshold = float((scores[best] + following) / 2)
    volumes = {}
    for name, count, own, own_gained in runs:
        kept = own >= threshold
        volumes[name] = float(2 * own_gained[kept].sum() / max(kept.sum() + count, 1))
    return {
        "threshold": threshold,
        "f1": float(f1[best]),
        "precision": float(hits[best] / (best + 1)),
        "recall": float(hits[best] / true),
        "volumes": volumes,
    }
