"""Metrics of an evaluation: pure functions of an `Outcome`, each with its line in `METRICS`.

What isn't defined (precision without a found cell, recall without a true one, F1 without either)
is None, which JSON writes as null.
"""

from collections.abc import Callable

import numpy as np

from voxmill.config.evaluation import EvaluationSettings
from voxmill.evaluation.matches import Outcome, near_seams

# The curve against the threshold is thinned to this many rows for the file.
CURVE_ROWS = 200
CONFIDENCE = 0.95
# The bootstrap's blocks: so many along an axis, none shorter than so many matching distances.
BLOCKS_AN_AXIS = 4
BLOCK_DISTANCES = 4
LEAST_BLOCKS = 10


def precision(tp: int, fp: int, fn: int) -> float | None:
    """Share of the found cells that are true."""
    return _ratio(tp, tp + fp)


def recall(tp: int, fp: int, fn: int) -> float | None:
    """Share of the true cells that are found."""
    return _ratio(tp, tp + fn)


def f1(tp: int, fp: int, fn: int) -> float | None:
    """Harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN)."""
    return _ratio(2 * tp, 2 * tp + fp + fn)


def _ratio(part, whole) -> float | None:
    return float(part / whole) if whole else None


def scores_of(tp: int, fp: int, fn: int) -> dict:
    """Counts with their precision, recall and F1."""
    counts = int(tp), int(fp), int(fn)
    return {
        "true_positives": counts[0],
        "false_positives": counts[1],
        "false_negatives": counts[2],
        "precision": precision(*counts),
        "recall": recall(*counts),
        "f1": f1(*counts),
    }


def average_precision(outcome: Outcome, settings: EvaluationSettings) -> float | None:
    """Area under precision against recall, a sum of steps without interpolation.

    Each step of recall counts with the precision at its end, as in scikit-learn's
    `average_precision_score`; true cells that are never found add nothing.
    """
    n_truth = int(outcome.truth_inside.sum())
    if not n_truth:
        return None
    _, tp, fp = outcome.by_threshold
    steps = np.diff(tp, prepend=0)
    return float((steps * tp / np.maximum(tp + fp, 1)).sum() / n_truth)


def localisation_error_um(outcome: Outcome, settings: EvaluationSettings) -> float | None:
    """Mean distance of the matched pairs, micrometres."""
    return float(outcome.distances_um.mean()) if len(outcome.distances_um) else None


def localisation_error_median_um(outcome: Outcome, settings: EvaluationSettings) -> float | None:
    """Median distance of the matched pairs, micrometres."""
    return float(np.median(outcome.distances_um)) if len(outcome.distances_um) else None


def count_error(outcome: Outcome, settings: EvaluationSettings) -> int:
    """Found minus true cells; below zero: too few were found."""
    _, fp, fn = outcome.counts
    return fp - fn


def count_error_relative(outcome: Outcome, settings: EvaluationSettings) -> float | None:
    """The count error over the number of true cells."""
    tp, fp, fn = outcome.counts
    return _ratio(fp - fn, tp + fn)


def f1_against_threshold(outcome: Outcome, settings: EvaluationSettings) -> list[dict]:
    """Scores at thresholds from the highest on, at most `CURVE_ROWS` of them.

    Cells below the threshold that they were found with are unknown: the curve ends there.
    """
    n_thresholds = len(outcome.by_threshold[0])
    chosen = np.unique(np.linspace(0, n_thresholds - 1, CURVE_ROWS).astype(int))
    return [_threshold_row(outcome, k) for k in chosen] if n_thresholds else []


def best_threshold(outcome: Outcome, settings: EvaluationSettings) -> dict | None:
    """The threshold of the largest F1 (the highest such), among all scores."""
    _, tp, fp = outcome.by_threshold
    n_truth = int(outcome.truth_inside.sum())
    if not len(tp) or not n_truth:
        return None
    return _threshold_row(outcome, int(np.argmax(2 * tp / np.maximum(tp + fp + n_truth, 1))))


def _threshold_row(outcome: Outcome, k: int) -> dict:
    thresholds, tp, fp = outcome.by_threshold
    fn = int(outcome.truth_inside.sum()) - tp[k]
    return {"threshold": float(thresholds[k])} | scores_of(tp[k], fp[k], fn)


def f1_against_distance(outcome: Outcome, settings: EvaluationSettings) -> list[dict]:
    """Scores at each of the matching distances."""
    return [
        {"distance_um": float(distance)} | scores_of(*outcome.at_distance(distance).counts)
        for distance in settings.distances_um
    ]


def seams(outcome: Outcome, settings: EvaluationSettings) -> dict | None:
    """Scores within one matching distance of a seam between tiles, and in the tiles' interior."""
    if not outcome.frame.tiles:
        return None
    places, kinds = outcome.events
    near = near_seams(places, outcome.frame, outcome.max_distance_um)
    return {
        name: scores_of(*np.bincount(kinds[chosen], minlength=3))
        for name, chosen in (("near", near), ("interior", ~near))
    }


def f1_interval(outcome: Outcome, settings: EvaluationSettings) -> dict | None:
    """Bootstrap interval of F1 (percentiles), over blocks of space where there are enough.

    Errors come in clusters (a dark vessel, a badly stained layer), so that drawing single points
    would give too narrow an interval: the region is cut into up to 4 x 4 x 4 blocks, and whole
    blocks are drawn with replacement. The blocks are not the tiles: the interval must not depend
    on how a volume was cut. With fewer than ten blocks that hold a point, too few to draw from,
    single points are drawn instead; `unit` says which.
    """
    places, kinds = outcome.events
    if not len(kinds) or not settings.bootstrap_samples:
        return None
    blocks = _blocks_of(places, outcome)
    unit = "blocks" if len(np.unique(blocks)) >= LEAST_BLOCKS else "points"
    _, units = np.unique(blocks if unit == "blocks" else np.arange(len(kinds)), return_inverse=True)
    counts = np.zeros((units.max() + 1, 3))
    np.add.at(counts, (units, kinds), 1)
    rng = np.random.default_rng(settings.seed)
    share = np.full(len(counts), 1 / len(counts))
    tp, fp, fn = np.array(
        [rng.multinomial(len(counts), share) @ counts for _ in range(settings.bootstrap_samples)]
    ).T
    low, high = np.quantile(
        2 * tp / (2 * tp + fp + fn), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    )
    return {
        "low": float(low),
        "high": float(high),
        "confidence": CONFIDENCE,
        "samples": settings.bootstrap_samples,
        "unit": unit,
        "units": len(counts),
    }


def _blocks_of(places, outcome: Outcome) -> np.ndarray:
    """Number of the bootstrap's block that each place lies in."""
    start, stop = (np.asarray(corner) for corner in outcome.frame.region)
    extent_um = (stop - start) * outcome.frame.voxel_size_um
    fit = extent_um // (BLOCK_DISTANCES * outcome.max_distance_um)
    along = np.clip(fit, 1, BLOCKS_AN_AXIS).astype(int)
    place = ((places - (start - 0.5)) * along // (stop - start)).astype(int)
    return np.ravel_multi_index(tuple(np.clip(place, 0, along - 1).T), along)


def _from_counts(function: Callable) -> Callable:
    return lambda outcome, settings: function(*outcome.counts)


METRICS: dict[str, Callable] = {
    "n_truth": _from_counts(lambda tp, fp, fn: tp + fn),
    "n_found": _from_counts(lambda tp, fp, fn: tp + fp),
    "true_positives": _from_counts(lambda tp, fp, fn: tp),
    "false_positives": _from_counts(lambda tp, fp, fn: fp),
    "false_negatives": _from_counts(lambda tp, fp, fn: fn),
    "precision": _from_counts(precision),
    "recall": _from_counts(recall),
    "f1": _from_counts(f1),
    "f1_interval": f1_interval,
    "average_precision": average_precision,
    "localisation_error_um": localisation_error_um,
    "localisation_error_median_um": localisation_error_median_um,
    "count_error": count_error,
    "count_error_relative": count_error_relative,
    "best_threshold": best_threshold,
    "f1_against_threshold": f1_against_threshold,
    "f1_against_distance": f1_against_distance,
    "seams": seams,
}
