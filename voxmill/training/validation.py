"""F1 on held-out data, through the cell finder that the workflow uses."""

import numpy as np

from voxmill.cells.find_cells import CellSettings, cells_of_volume
from voxmill.config.training import TrainingSettings
from voxmill.engine.backends import forward
from voxmill.evaluation.matching import incremental_matching, match_points
from voxmill.tiles.grid import grow, inside
from voxmill.training.sources import Source, are_in, points_in
from voxmill.volumes.blocks import ArrayVolume, block_list
from voxmill.volumes.normalisation import normalise

# Candidates below this probability are no cells at any sensible threshold.
LEAST_SCORE = 0.02
# Where a threshold changes the cells themselves, these are tried.
THRESHOLDS = np.round(np.arange(0.04, 0.98, 0.04), 2)
BLOCK_VOX = 160
# Context around a block; beyond it a validation score changes by far less than from cell to cell.
HALO_VOX = 24


def predict_box(network, source: Source, box, normalisation: dict, device: str, threads: int):
    """Probabilities (outputs, z, y, x) of a box, with the context around it."""
    start, stop = np.array(box)
    outputs = network.settings.outputs
    result = np.empty((outputs, *(stop - start)), np.float32)
    for a, b in block_list(stop - start, BLOCK_VOX):
        a, b = start + a, start + b
        outer = grow(a, b, (HALO_VOX,) * 3, source.volume.shape)
        grey = normalise(source.volume.read_window(*outer), source.statistics, normalisation)
        values = forward(network, grey[None], "auto", device, "float32", threads)
        core = tuple(slice(p, q) for p, q in zip(a - start, b - start, strict=True))
        result[(slice(None), *core)] = values[(slice(None), *inside(a, b, outer[0]))]
    return result


def find_points(
    probability, settings: TrainingSettings, voxel_size_um, threshold, origin=(0, 0, 0)
):
    """Cells at a threshold: points in absolute voxels, and their scores."""
    finder = CellSettings.from_dict({**settings.finder, "threshold": threshold})
    table = cells_of_volume(ArrayVolume(probability), finder, voxel_size_um)
    return table[["z_vox", "y_vox", "x_vox"]].to_numpy() + origin, table["score"].to_numpy()


def validate(network, sources: list[Source], settings: TrainingSettings, device, threads) -> dict:
    """F1 of all validation boxes together, at the threshold that is best for them together.

    Cells are found, and matched, with some surroundings of each box, so that none is cut by it;
    those whose centroid lies in the box count.

    Parameters
    ----------
    network : torch module
    sources : list of Source
        Those with a validation box are used.
    settings : TrainingSettings
    device : str
    threads : int

    Returns
    -------
    dict
        `threshold`, `f1`, `precision`, `recall`, and `volumes`: F1 of each at that threshold.
    """
    by_threshold = settings.finder["method"] != "maxima"
    runs = []
    for source in (s for s in sources if s.validation):
        around = np.ceil(1.5 * settings.cell_diameter_um / np.array(source.voxel_size_um))
        outer = grow(*source.validation, around.astype(int), source.volume.shape)
        probability = predict_box(network, source, outer, settings.normalisation, device, threads)[
            0
        ]
        score = score_by_threshold if by_threshold else _score_by_candidate
        runs.append((source.name, *score(probability, source, outer, settings)))
    return (summarise_thresholds if by_threshold else summarise)(runs)


def _score_by_candidate(probability, source: Source, outer, settings: TrainingSettings):
    """True cells, and of the detections in the box, in descending order: score, and a pair more."""
    found, scores = find_points(probability, settings, source.voxel_size_um, LEAST_SCORE, outer[0])
    order = np.argsort(-scores, kind="stable")
    found, scores = found[order], scores[order]
    truth = points_in(source.points, outer)
    gains = incremental_matching(truth, found, settings.max_distance_um, source.voxel_size_um)
    own = are_in(found, source.validation)
    return len(points_in(truth, source.validation)), scores[own], gains[own] >= 0


def score_by_threshold(probability, source: Source, outer, settings: TrainingSettings):
    """True cells, and at each of `THRESHOLDS` the detections in the box and those matched."""
    truth = points_in(source.points, outer)
    counts = []
    for threshold in THRESHOLDS:
        found, _ = find_points(probability, settings, source.voxel_size_um, threshold, outer[0])
        pairs = match_points(truth, found, settings.max_distance_um, source.voxel_size_um)
        own = are_in(found, source.validation)
        counts.append((own.sum(), own[pairs[:, 1]].sum()))
    return len(points_in(truth, source.validation)), *np.array(counts).T


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
