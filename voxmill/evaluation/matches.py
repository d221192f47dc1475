"""What a matching of cells to truth says of every single point; the metrics count from it."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from voxmill.evaluation.matching import DISTANCE_TOLERANCE, incremental_matching, match_points

Box = tuple[tuple[int, int, int], tuple[int, int, int]]


@dataclass(frozen=True)
class Frame:
    """The volume that points lie in.

    Parameters
    ----------
    shape : (3,) int
        Voxels, z, y, x.
    voxel_size_um : (3,) float array
    region : (start, stop)
        Region of interest, absolute voxels, half-open; the whole volume where there is none.
    tiles : list of dict
        `name`, and `start` and `stop` of the core, of every tile; may be empty.
    """

    shape: tuple[int, int, int]
    voxel_size_um: np.ndarray
    region: Box
    tiles: list[dict]


@dataclass(frozen=True)
class Outcome:
    """True and found points, their pairs, and which of them count.

    In a region of interest a point counts if its nearest voxel lies in the region. So that a pair
    across the region's edge isn't torn apart, all points in the region grown by the matching
    distance are matched, and

    - a pair whose true point is inside is a true positive, wherever the found one is,
    - an unmatched true point inside is a false negative,
    - an unmatched found point inside is a false positive,
    - everything else is ignored, a found point inside whose true one is outside too.

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
        return in_box(self.truth, self.frame.region)

    @cached_property
    def found_inside(self) -> np.ndarray:
        """(M,) whether a found point lies in the region."""
        return in_box(self.found, self.frame.region)

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
        apart = (self.truth[rows] - self.found[columns]) * self.frame.voxel_size_um
        return np.sqrt((apart**2).sum(axis=1))

    @property
    def counts(self) -> tuple[int, int, int]:
        """Numbers of true positives, false positives and false negatives."""
        return len(self.true_positives), len(self.false_positives), len(self.false_negatives)

    @cached_property
    def events(self) -> tuple[np.ndarray, np.ndarray]:
        """Places (E, 3) and kinds (E,) of all that counts: 0 a true positive (at its true point),
        1 a false positive, 2 a false negative.
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
    def by_threshold(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Thresholds (T,), descending, and the true and false positives (T,) at each.

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
        scores = self.scores[order]
        last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(order) else order
        false = self.found_inside[order] & ~gained
        return scores[last], inside.cumsum()[last], false.cumsum()[last]

    def at_distance(self, max_distance_um: float) -> "Outcome":
        """The same points matched at another distance."""
        return make_outcome(self.truth, self.found, self.scores, self.frame, max_distance_um)


def make_outcome(truth, found, scores, frame: Frame, max_distance_um: float) -> Outcome:
    """Match the points in and near the frame's region; parameters as in `Outcome`."""
    size = frame.voxel_size_um
    reach = max_distance_um * (1 + DISTANCE_TOLERANCE)
    near = [
        np.flatnonzero(distance_to_box_um(points, frame.region, size) <= reach)
        for points in (truth, found)
    ]
    pairs = match_points(truth[near[0]], found[near[1]], max_distance_um, size)
    pairs = np.column_stack([near[0][pairs[:, 0]], near[1][pairs[:, 1]]])
    return Outcome(truth, found, scores, frame, max_distance_um, *near, pairs)


def nearest_voxels(points) -> np.ndarray:
    """Voxel (K, 3) of each point; half-way between two it is the upper one."""
    return np.floor(np.asarray(points) + 0.5).astype(np.int64)


def in_box(points, box: Box) -> np.ndarray:
    """Whether the nearest voxel of each point lies in a half-open box."""
    voxels = nearest_voxels(points)
    return ((voxels >= box[0]) & (voxels < box[1])).all(axis=1)


def distance_to_box_um(points, box: Box, voxel_size_um) -> np.ndarray:
    """Distance of each point to a box of voxels (their outer faces), 0 inside; micrometres."""
    low, high = np.asarray(box[0]) - 0.5, np.asarray(box[1]) - 0.5
    beyond = np.maximum(np.maximum(low - points, points - high), 0) * voxel_size_um
    return np.sqrt((beyond**2).sum(axis=1))


def tile_of_points(points, tiles: list[dict]) -> np.ndarray:
    """Index of the tile whose core holds each point's nearest voxel, -1 for none.

    Parameters
    ----------
    points : (K, 3) float array
        Voxels, z, y, x.
    tiles : list of dict
        With `start` and `stop` of the core; cores form a grid.
    """
    if not tiles:
        return np.full(len(points), -1)
    starts = np.array([tile["start"] for tile in tiles])
    stops = np.array([tile["stop"] for tile in tiles])
    axes = [np.unique(starts[:, axis]) for axis in range(3)]
    grid = np.full([len(axis) for axis in axes], -1)
    grid[tuple(np.searchsorted(a, s) for a, s in zip(axes, starts.T, strict=True))] = range(
        len(tiles)
    )
    voxels = nearest_voxels(points)
    place = [np.searchsorted(a, v, "right") - 1 for a, v in zip(axes, voxels.T, strict=True)]
    before = (np.array(place) < 0).any(axis=0)
    index = grid[tuple(np.maximum(p, 0) for p in place)]
    held = (index >= 0) & ~before & (voxels < stops[index]).all(axis=1)
    return np.where(held, index, -1)


def near_seams(points, frame: Frame, distance_um: float) -> np.ndarray:
    """Whether each point is within a distance of a face of its tile's core that is no border of
    the volume; points in no tile are not.
    """
    index = tile_of_points(points, frame.tiles)
    near = np.zeros(len(points), dtype=bool)
    held = np.flatnonzero(index >= 0)
    if len(held):
        starts = np.array([tile["start"] for tile in frame.tiles])[index[held]]
        stops = np.array([tile["stop"] for tile in frame.tiles])[index[held]]
        below = np.where(starts > 0, points[held] - (starts - 0.5), np.inf)
        above = np.where(stops < np.asarray(frame.shape), (stops - 0.5) - points[held], np.inf)
        apart_um = np.minimum(below, above) * frame.voxel_size_um
        near[held] = (apart_um <= distance_um).any(axis=1)
    return near
