"""Metrics of an evaluation: pure functions of `Matches`, each with its line in `METRICS`.

What is not defined (precision without a found cell, recall without a true one, F1 without either)
is None, which JSON writes as null.
"""

from collections.abc import Callable

import numpy as np

from voxmill.config.evaluation import EvaluationSettings
from voxmill.evaluation.matches import Matches, near_seams

# The curve against the threshold is thinned to this many rows for the file.
CURVE_ROWS = 200
CONFIDENCE = 0.95
# The bootstrap's blocks: at most so many along an axis, none shorter than so many matching
# distances, and at least so many that hold a point.
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


def _ratio(part: int, whole: int) -> float | None:
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


def average_precision(matches: Matches, settings: EvaluationSettings) -> float | None:
    """Area under precision against recall, a sum of steps without interpolation.

    Each step of recall counts with the precision at its end, as in scikit-learn's
    `average_precision_score`; true cells that are never found add nothing.
    """
    curve = matches.by_threshold
    if not curve.n_truth:
        return None
    tp = curve.true_positives
    steps = np.diff(tp, prepend=0)
    return float((steps * tp / np.maximum(curve.found, 1)).sum() / curve.n_truth)


def localisation_error_um(matches: Matches, settings: EvaluationSettings) -> float | None:
    """Mean distance of the matched pairs, micrometres."""
    return float(matches.distances_um.mean()) if len(matches.distances_um) else None


def localisation_error_median_um(matches: Matches, settings: EvaluationSettings) -> float | None:
    """Median distance of the matched pairs, micrometres."""
    return float(np.median(matches.distances_um)) if len(matches.distances_um) else None


def count_error(matches: Matches, settings: EvaluationSettings) -> int:
    """Found minus true cells; below zero: too few were found."""
    _, fp, fn = matches.counts
    return fp - fn


def count_error_relative(matches: Matches, settings: EvaluationSettings) -> float | None:
    """The count error over the number of true cells."""
    tp, fp, fn = matches.counts
    return _ratio(fp - fn, tp + fn)


def f1_against_threshold(matches: Matches, settings: EvaluationSettings) -> list[dict]:
    """Scores at thresholds, the highest first, at most `CURVE_ROWS` of them.

    Nothing is known of cells below the threshold with which cells were found: the curve ends there.
    """
    n_thresholds = len(matches.by_threshold.thresholds)
    chosen = np.unique(np.linspace(0, n_thresholds - 1, CURVE_ROWS).astype(int))
    return [_threshold_row(matches, k) for k in chosen] if n_thresholds else []


def threshold_of_best_f1(matches: Matches, settings: EvaluationSettings) -> dict | None:
    """Scores at the threshold of the largest F1 (the highest such), among all scores."""
    curve = matches.by_threshold
    if not len(curve.thresholds) or not curve.n_truth:
        return None
    return _threshold_row(matches, curve.best)


def _threshold_row(matches: Matches, k: int) -> dict:
    curve = matches.by_threshold
    tp, fp = curve.true_positives[k], curve.false_positives[k]
    return {"threshold": float(curve.thresholds[k])} | scores_of(tp, fp, curve.n_truth - tp)


def f1_against_distance(matches: Matches, settings: EvaluationSettings) -> list[dict]:
    """Scores at each of the matching distances."""
    return [
        {"distance_um": float(distance)} | scores_of(*matches.at_distance(distance).counts)
        for distance in settings.distances_um
    ]


def seams(matches: Matches, settings: EvaluationSettings) -> dict | None:
    """Scores within one matching distance of a seam between tiles, and in the tiles' interior."""
    if not matches.frame.tiles:
        return None
    places, kinds = matches.events
    near = near_seams(places, matches.frame, matches.max_distance_um)
    return {
        name: scores_of(*np.bincount(kinds[chosen], minlength=3))
        for name, chosen in (("near", near), ("interior", ~near))
    }


def f1_interval(matches: Matches, settings: EvaluationSettings) -> dict | None:
    """Bootstrap interval of F1 (percentiles), over blocks of space where there are enough.

    Errors come in clusters (a dark vessel, a badly stained layer), so that drawing single points
    would give too narrow an interval: the region is cut into up to 4 x 4 x 4 blocks, and whole
    blocks are drawn with replacement. The blocks are not the tiles, as the interval must not depend
    on how a volume was cut. Where fewer than ten blocks hold a point, which is too few to draw
    from, single points are drawn instead; `unit` says which.
    """
    places, kinds = matches.events
    if not len(kinds) or not settings.bootstrap_samples:
        return None
    blocks = _blocks_of(places, matches)
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


def _blocks_of(places: np.ndarray, matches: Matches) -> np.ndarray:
    """Number of the bootstrap's block that each place lies in."""
    start, stop = (np.asarray(corner) for corner in matches.frame.region)
    extent_um = matches.frame.voxel_size_um.to_um(stop - start)
    fit = extent_um // (BLOCK_DISTANCES * matches.max_distance_um)
    along = np.clip(fit, 1, BLOCKS_AN_AXIS).astype(int)
    place = ((places - (start - 0.5)) * along // (stop - start)).astype(int)
    return np.ravel_multi_index(tuple(np.clip(place, 0, along - 1).T), along)


def _from_counts(function: Callable) -> Callable:
    return lambda matches, settings: function(*matches.counts)


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
    "best_threshold": threshold_of_best_f1,
    "f1_against_threshold": f1_against_threshold,
    "f1_against_distance": f1_against_distance,
    "seams": seams,
}
