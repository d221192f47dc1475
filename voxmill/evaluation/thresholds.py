"""The threshold with the largest F1: one curve of counts against thresholds for all who choose."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from voxmill.evaluation.matching import incremental_matching


@dataclass(frozen=True)
class ThresholdCurve:
    """True and false positives at thresholds.

    Parameters
    ----------
    thresholds : (T,) float array
        In the order in which they are preferred where F1 is equal.
    true_positives, false_positives : (T,) int arrays
        Of the cells with a score of the threshold or more.
    n_truth : int
        True cells.

    Examples
    --------
    >>> curve = ThresholdCurve(np.array([0.9, 0.5]), np.array([1, 2]), np.array([0, 2]), 2)
    >>> curve.f1.round(2).tolist()
    [0.67, 0.67]
    >>> curve.best
    0
    """

    thresholds: np.ndarray
    true_positives: np.ndarray
    false_positives: np.ndarray
    n_truth: int

    @classmethod
    def of_detections(
        cls, scores: np.ndarray, gained: np.ndarray, n_truth: int
    ) -> "ThresholdCurve":
        """The curve of detections with a threshold at each of them.

        Parameters
        ----------
        scores : (M,) float array
            Descending.
        gained : (M,) bool array
            Whether a detection makes one pair more with those before it.
        n_truth : int

        Examples
        --------
        >>> curve = ThresholdCurve.of_detections(np.array([9, 8, 7]), np.array([1, 0, 1]) > 0, 3)
        >>> curve.true_positives.tolist(), curve.false_positives.tolist()
        ([1, 1, 2], [0, 1, 1])
        """
        return cls(scores, np.cumsum(gained), np.cumsum(~gained), n_truth)

    @property
    def found(self) -> np.ndarray:
        """(T,) cells found at each threshold."""
        return self.true_positives + self.false_positives

    @property
    def f1(self) -> np.ndarray:
        """(T,) F1 at each threshold; 0 where there is neither a true nor a found cell."""
        return 2 * self.true_positives / np.maximum(self.found + self.n_truth, 1)

    @property
    def best(self) -> int:
        """Index of the largest F1, the first where several are equal."""
        return int(np.argmax(self.f1))

    def at_scores(self) -> "ThresholdCurve":
        """The curve at the last detection of each score: a threshold keeps all of them or none."""
        last = np.flatnonzero(np.append(self.thresholds[1:] != self.thresholds[:-1], True))
        last = last[: len(self.thresholds)]
        return ThresholdCurve(
            self.thresholds[last],
            self.true_positives[last],
            self.false_positives[last],
            self.n_truth,
        )


def best_threshold(
    truth: np.ndarray,
    points: np.ndarray,
    scores: np.ndarray,
    max_distance_um: float,
    voxel_size_um: Iterable[float],
) -> tuple[float, float]:
    """The threshold with the largest F1 of detected points, and that F1.

    Parameters
    ----------
    truth : (N, 3) float array
        True cells in voxels, z, y, x.
    points, scores : (M, 3) and (M,) float arrays
        Detections in voxels, in any order.
    max_distance_um, voxel_size_um
        As in `voxmill.evaluation.matching.match_points`.

    Returns
    -------
    threshold, f1 : float
        The score of the last detection kept; (inf, 0) without a detection or a true cell.
    """
    if not len(points) or not len(truth):
        return float("inf"), 0.0
    order = np.argsort(-scores, kind="stable")
    gains = incremental_matching(truth, points[order], max_distance_um, voxel_size_um)
    curve = ThresholdCurve.of_detections(scores[order], gains >= 0, len(truth)).at_scores()
    return float(curve.thresholds[curve.best]), float(curve.f1[curve.best])
