"""True and found cells matched, and which of them count; the metrics count from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from voxmill.evaluation.matching import DISTANCE_TOLERANCE, incremental_matching, match_points
from voxmill.evaluation.thresholds import ThresholdCurve
from voxmill.geometry import Box, Triple, VoxelSize
from voxmill.tiles.grid import Tile


@dataclass(frozen=True)
class Frame:
    """The volume that points lie in.

    Parameters
    ----------
    shape : (3,) int
        Voxels, z, y, x.
    voxel_size_um : VoxelSize
    region : Box
        Region of interest, absolute voxels; the whole volume where there is none.
    tiles : sequence of Tile
        Every tile of the volume; may be empty.
    """

    shape: Triple
    voxel_size_um: VoxelSize
    region: Box
    tiles: Sequence[Tile] = ()


@dataclass(frozen=True)
class Matches:
    """True and found points, their pairs, and which of them count.

    In a region of interest a point counts if its nearest voxel lies in the region. So that a pair
    across the region's edge isn't torn apart, all points in the region grown by the matching
    distance are matched, and

    - a pair whose true point is inside is a true positive, wherever the found one is,
    - an unmatched true point inside is a false negative,
    - an unmatched found point inside is a false positive,
    - everything else is ignored, also a found point inside whose true one is outside.

    Parameters
    ----------
    truth, found : (N, 3), (M, 3) float arrays
        All points in voxels, z, y, x, absolute.
    scores : (M,) float array
        Scores of the found points.
    frame : Frame
    max_distance_um : float
        Matching distance.
    truth_near, found_near : int arrays
        Rows of the points in the region grown by the distance, which took part.
    pairs : (K, 2) int array
        Matched rows of `truth` and `found`.
    """

    truth: np.ndarray
    found: np.ndarray
    scores: np.ndarray
    frame: Frame
    max_distance_um: float
    truth_near: np.ndarray
    found_near: np.ndarray
    pairs: np.ndarray

    @cached_property
    def truth_inside(self) -> np.ndarray:
        """(N,) whether a true point lies in the region."""
        return self.frame.region.contains(self.truth)

    @cached_property
    def found_inside(self) -> np.ndarray:
        """(M,) whether a found point lies in the region."""
        return self.frame.region.contains(self.found)

    @cached_property
    def true_positives(self) -> np.ndarray:
        """(TP, 2) pairs whose true point is inside."""
        return self.pairs[self.truth_inside[self.pairs[:, 0]]]

    @cached_property
    def false_negatives(self) -> np.ndarray:
        """Rows of `truth`: inside and unmatched."""
        free = self.truth_inside.copy()
        free[self.pairs[:, 0]] = False
        return np.flatnonzero(free)

    @cached_property
    def false_positives(self) -> np.ndarray:
        """Rows of `found`: inside and unmatched."""
        free = self.found_inside.copy()
        free[self.pairs[:, 1]] = False
        return np.flatnonzero(free)

    @cached_property
    def distances_um(self) -> np.ndarray:
        """(TP,) distances of the true positives' pairs, micrometres."""
        rows, columns = self.true_positives.T
        apart_um = self.frame.voxel_size_um.to_um(self.truth[rows] - self.found[columns])
        return np.sqrt((apart_um**2).sum(axis=1))

    @property
    def counts(self) -> tuple[int, int, int]:
        """Numbers of true positives, false positives and false negatives."""
        return len(self.true_positives), len(self.false_positives), len(self.false_negatives)

    @cached_property
    def events(self) -> tuple[np.ndarray, np.ndarray]:
        """Places (E, 3) in voxels, and kinds (E,), of all that counts.

        Kind 0 is a true positive (at its true point), 1 a false positive, 2 a false negative.
        """
        places = np.concatenate(
            [
                self.truth[self.true_positives[:, 0]],
                self.found[self.false_positives],
                self.truth[self.false_negatives],
            ]
        )
        return places, np.repeat([0, 1, 2], self.counts)

    @cached_property
    def by_threshold(self) -> ThresholdCurve:
        """True and false positives at each score, the highest first.

        At a threshold the found points of that score or better are matched anew, so that the
        numbers are those of a run with this threshold. (At the edge of a region several largest
        matchings may count differently; then one of them is taken.)
        """
        order = self.found_near[np.argsort(-self.scores[self.found_near], kind="stable")]
        gains = incremental_matching(
            self.truth[self.truth_near],
            self.found[order],
            self.max_distance_um,
            self.frame.voxel_size_um,
        )
        gained = gains >= 0
        inside = np.zeros(len(order), dtype=bool)
        inside[gained] = self.truth_inside[self.truth_near[gains[gained]]]
        false = self.found_inside[order] & ~gained
        n_truth = int(self.truth_inside.sum())
        scores = self.scores[order]
        return ThresholdCurve(scores, inside.cumsum(), false.cumsum(), n_truth).at_scores()

    def at_distance(self, max_distance_um: float) -> "Matches":
        """The same points matched at another distance."""
        return match_cells(self.truth, self.found, self.scores, self.frame, max_distance_um)


def match_cells(
    truth: np.ndarray, found: np.ndarray, scores: np.ndarray, frame: Frame, max_distance_um: float
) -> Matches:
    """Match the points in and near the frame's region; parameters as of `Matches`."""
    size = frame.voxel_size_um
    reach = max_distance_um * (1 + DISTANCE_TOLERANCE)
    truth_near, found_near = (
        np.flatnonzero(frame.region.distance_um(points, size) <= reach) for points in (truth, found)
    )
    near = match_points(truth[truth_near], found[found_near], max_distance_um, size)
    pairs = np.column_stack([truth_near[near[:, 0]], found_near[near[:, 1]]])
    return Matches(truth, found, scores, frame, max_distance_um, truth_near, found_near, pairs)


def tile_of_points(points: np.ndarray, tiles: Sequence[Tile]) -> np.ndarray:
    """Index of the tile whose core holds each point's nearest voxel, -1 for none.

    Parameters
    ----------
    points : (K, 3) float array
        Voxels, z, y, x.
    tiles : sequence of Tile
        Their cores form a grid, which may have gaps.

    Returns
    -------
    (K,) int array
    """
    if not tiles:
        return np.full(len(points), -1)
    starts, stops = _corners(tiles)
    axes = [np.unique(starts[:, axis]) for axis in range(3)]
    grid = np.full([len(axis) for axis in axes], -1)
    columns = zip(axes, starts.T, strict=True)
    grid[tuple(np.searchsorted(a, s) for a, s in columns)] = range(len(tiles))
    # A voxel's lower face is half a voxel below its index.
    columns = zip(axes, np.asarray(points).T, strict=True)
    place = [np.searchsorted(a - 0.5, p, "right") - 1 for a, p in columns]
    before = (np.array(place) < 0).any(axis=0)
    index = grid[tuple(np.maximum(p, 0) for p in place)]
    held = (index >= 0) & ~before & (points < stops[index] - 0.5).all(axis=1)
    return np.where(held, index, -1)


def near_seams(points: np.ndarray, frame: Frame, distance_um: float) -> np.ndarray:
    """Whether each point is near a seam between tiles.

    Parameters
    ----------
    points : (K, 3) float array
        Voxels, z, y, x.
    frame : Frame
    distance_um : float

    Returns
    -------
    (K,) bool array
        True within the distance of a face of the tile's core that is not a border of the volume;
        False for points in no tile.
    """
    index = tile_of_points(points, frame.tiles)
    near = np.zeros(len(points), dtype=bool)
    held = np.flatnonzero(index >= 0)
    if len(held):
        starts, stops = (corners[index[held]] for corners in _corners(frame.tiles))
        below = np.where(starts > 0, points[held] - (starts - 0.5), np.inf)
        above = np.where(stops < np.asarray(frame.shape), (stops - 0.5) - points[held], np.inf)
        apart_um = frame.voxel_size_um.to_um(np.minimum(below, above))
        near[held] = (apart_um <= distance_um).any(axis=1)
    return near


def _corners(tiles: Sequence[Tile]) -> tuple[np.ndarray, np.ndarray]:
    """Starts and stops (N, 3) of the tiles' cores."""
    return np.array([t.core.start for t in tiles]), np.array([t.core.stop for t in tiles])
