"""Leave one volume out: every method is tuned on the other volumes and scored on the one left out.

A method gives `Run`s: of each volume and each of its settings, the cells at any threshold, found
without the volume's ground truth. Setting and threshold for a volume are those with the best mean
F1 of the other volumes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from voxmill.evaluation import metrics
from voxmill.evaluation.matches import Frame, match_cells
from voxmill.evaluation.matching import incremental_matching, match_points
from voxmill.geometry import Box, VoxelSize

# Distances of these data are in voxels.
SIZE = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Volume:
    """A volume's ground truth.

    Parameters
    ----------
    name : str
    shape : (3,) int
    points : (N, 3) float array
        True cells, voxels.
    regions : list of Box
        Where the ground truth is complete.
    limit_vox : float
        Matching distance.
    """

    name: str
    shape: tuple[int, int, int]
    points: np.ndarray
    regions: list[Box]
    limit_vox: float

    def kept(self, points: np.ndarray) -> np.ndarray:
        """Which points lie in the regions: (N,) bool."""
        inside = [box.contains(points) for box in self.regions]
        return np.any(inside, axis=0) if len(points) else np.zeros(0, bool)


@dataclass
class Run:
    """Cells of a volume at any threshold.

    Parameters
    ----------
    volume : Volume
    thresholds : (T,) float array
        Ascending.
    find : callable
        Takes a threshold, gives (N, 3) points in the regions.
    """

    volume: Volume
    thresholds: np.ndarray
    find: Callable[[float], np.ndarray]

    @cached_property
    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Cells found and matched at each threshold, (T,) each."""
        rows = []
        for threshold in self.thresholds:
            points = self.find(float(threshold))
            pairs = match_points(self.volume.points, points, self.volume.limit_vox, SIZE)
            rows.append((len(points), len(pairs)))
        found, matched = np.array(rows).T
        return found, matched

    @cached_property
    def f1(self) -> np.ndarray:
        """F1 at each threshold."""
        found, matched = self.counts
        return 2 * matched / np.maximum(found + len(self.volume.points), 1)

    def f1_at(self, threshold: float) -> float:
        """F1 at the nearest threshold that was counted."""
        return float(self.f1[np.argmin(np.abs(self.thresholds - threshold))])

    def average_precision(self) -> float:
        """Area under precision against recall, down to the lowest threshold."""
        found, matched = (counts[::-1] for counts in self.counts)
        recall = matched / len(self.volume.points)
        precision = matched / np.maximum(found, 1)
        # At equal recall the highest threshold counts; what a lower one loses is not an area.
        rises = np.maximum(np.diff(np.maximum.accumulate(np.append(0.0, recall))), 0)
        return float((rises * precision).sum())


class ScoredRun(Run):
    """Cells whose scores a threshold selects; counted in one pass.

    Parameters
    ----------
    volume : Volume
    points, scores : (M, 3) and (M,) float arrays
    """

    def __init__(self, volume: Volume, points: np.ndarray, scores: np.ndarray):
        kept = volume.kept(points)
        order = np.argsort(-scores[kept], kind="stable")
        self.points, self.scores = points[kept][order], scores[kept][order]
        super().__init__(volume, np.unique(self.scores), self._above)

    def _above(self, threshold: float) -> np.ndarray:
        return self.points[self.scores >= threshold]

    @cached_property
    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        gains = incremental_matching(self.volume.points, self.points, self.volume.limit_vox, SIZE)
        matched = np.append(0, np.cumsum(gains >= 0))
        found = np.array([(self.scores >= t).sum() for t in self.thresholds], int)
        return found, matched[found]

    def f1_at(self, threshold: float) -> float:
        at = int(np.searchsorted(self.thresholds, threshold))
        return float(self.f1[at]) if at < len(self.thresholds) else 0.0


Runs = dict[str, dict[str, Run]]
"""Of each volume's name, the run of each setting."""


def choose(runs: Runs, left_out: str | None) -> tuple[str, float, float]:
    """Setting and threshold with the best mean F1 over all volumes but one.

    Parameters
    ----------
    runs : Runs
    left_out : str or None
        None: over all volumes.

    Returns
    -------
    setting : str
    threshold : float
        The middle one of those within 0.001 of the best.
    f1 : float
        The best mean.
    """
    others = [of_volume for name, of_volume in runs.items() if name != left_out]
    best = ("", 0.0, -1.0)
    for setting in others[0]:
        pooled = np.unique(np.concatenate([of_volume[setting].thresholds for of_volume in others]))
        tried = pooled[np.unique(np.linspace(0, len(pooled) - 1, 150).round().astype(int))]
        means = np.array([np.mean([v[setting].f1_at(t) for v in others]) for t in tried])
        if means.max() > best[2]:
            near = np.flatnonzero(means >= means.max() - 0.001)
            best = (setting, float(tried[near[len(near) // 2]]), float(means.max()))
    return best


def scores_of(volume: Volume, points: np.ndarray) -> dict:
    """F1, precision and recall of points in the regions, and their number.

    `f1_inside` and `f1_border` part the cells by whether they lie nearer to the volume's border
    than the matching distance; `cells_inside` is the number of true cells that do not.
    """
    limit, size = volume.limit_vox, VoxelSize.of(SIZE)
    whole = Box.from_shape(volume.shape)
    everywhere, inside = (
        match_cells(
            volume.points, points, np.zeros(len(points)), Frame(volume.shape, size, box), limit
        )
        for box in (whole, whole.grow(-int(limit)))
    )
    border = [a - b for a, b in zip(everywhere.counts, inside.counts, strict=True)]
    scores = metrics.scores_of(*everywhere.counts)
    return {
        **{key: round(scores[key] or 0.0, 4) for key in ("f1", "precision", "recall")},
        "found": len(points),
        "errors": int(sum(everywhere.counts[1:])),
        "f1_inside": round(metrics.f1(*inside.counts) or 0.0, 4),
        "f1_border": round(metrics.f1(*border) or 0.0, 4),
        "cells_inside": int(inside.truth_inside.sum()),
    }


def judge(run: Run, threshold: float) -> dict:
    """Scores of a run at a threshold, and the best that another threshold would give."""
    best = int(np.argmax(run.f1))
    return {
        **scores_of(run.volume, run.find(threshold)),
        "average_precision": round(run.average_precision(), 4),
        "threshold": round(threshold, 4),
        "best_f1": round(float(run.f1[best]), 4),
        "best_threshold": round(float(run.thresholds[best]), 4),
    }


def leave_out(runs: Runs) -> dict[str, dict]:
    """Judge a method on each volume, tuned on the others."""
    rows = {}
    for name, of_volume in runs.items():
        setting, threshold, tuned = choose(runs, name)
        rows[name] = judge(of_volume[setting], threshold)
        rows[name] |= {"setting": setting, "f1_tuned": round(tuned, 4)}
    return rows


def table(rows: dict[str, dict[str, dict]], volumes: dict[str, Volume]) -> str:
    """Markdown of all methods (`rows[method][volume]`), the volume on which the first is worst
    first."""
    first = next(iter(rows))
    order = sorted(rows[first], key=lambda name: rows[first][name]["f1"])
    keys = ("f1", "precision", "recall", "average_precision", "f1_inside", "f1_border", "best_f1")
    titles = ("F1", "precision", "recall", "AP", "F1 inside", "F1 border", "F1 at its best")
    lines = [f"| volume | cells | method | {' | '.join(titles)} |", "|---" * 10 + "|"]
    for name in order:
        for method, of_method in rows.items():
            values = " | ".join(f"{of_method[name][key]:.3f}" for key in keys)
            lines.append(f"| {name} | {len(volumes[name].points)} | {method} | {values} |")
    for method, of_method in rows.items():
        mean = np.mean([row["f1"] for row in of_method.values()])
        lines.append(f"| mean | | {method} | {mean:.3f} |" + " |" * 6)
    return "\n".join(lines)
