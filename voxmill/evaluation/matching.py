"""One-to-one matching of detected points to true ones.

`match_points` gives a matching with the most pairs and, among these, the least total distance.
`incremental_matching` gives the size of the largest matching for every number of best-scored
detections, from which the exact precision-recall curve follows.

Both look only at pairs within the distance (KD-tree); `voxmill.evaluation.assignment` solves the
matching along them.
"""

import itertools
from collections.abc import Iterable

import numpy as np
from scipy.spatial import KDTree

from voxmill.evaluation.assignment import match_pairs
from voxmill.geometry import VoxelSize
from voxmill.runtime.errors import VoxmillError

# A pair whose distance equals the limit in decimals must not depend on rounding.
DISTANCE_TOLERANCE = 1e-9
# About 1 GiB of pairs; a distance that gives more is larger than the spacing of the cells.
MOST_EDGES = 2e7


def match_points(
    truth: np.ndarray, found: np.ndarray, max_distance_um: float, voxel_size_um: Iterable[float]
) -> np.ndarray:
    """Match found points to true ones, one to one: most pairs first, then least total distance.

    The number of pairs is exact; the total distance is the least to within
    `K * max_distance_um * 2**-30`, as distances are compared as integers (see `_integer_costs`).

    Parameters
    ----------
    truth : (N, 3) float array
        True centroids in voxels, axis order z, y, x.
    found : (M, 3) float array
        Detected centroids, the same units and order.
    max_distance_um : float
        Pairs at this distance or less may be matched, micrometres.
    voxel_size_um : (3,) float
        Edge lengths of a voxel, z, y, x.

    Returns
    -------
    pairs : (K, 2) int array
        Row indices into `truth` and `found`, sorted by the first; K <= min(N, M).

    Raises
    ------
    VoxmillError
        If an array is not (·, 3) or not finite, or a distance or a voxel size is not positive.

    Examples
    --------
    Matching each truth to its nearest detection would give one pair; two are possible:

    >>> match_points([[0, 0, 0], [0, 0, 3]], [[0, 0, 2], [0, 0, 6]], 3, (1, 1, 1)).tolist()
    [[0, 0], [1, 1]]
    """
    truth, found = check_points(truth, "truth"), check_points(found, "found")
    pairs = near_pairs(truth, found, max_distance_um, voxel_size_um)
    return match_pairs(*pairs, max_distance_um, len(truth), len(found))


def incremental_matching(
    truth: np.ndarray, found: np.ndarray, max_distance_um: float, voxel_size_um: Iterable[float]
) -> np.ndarray:
    """Size of the largest matching for every prefix of the detections.

    An augmenting path is looked for from every new detection (Kuhn's algorithm). A detection
    without one stays unmatched for good, and what its search reached is never searched again, so
    that all failing searches together visit every pair once.

    Parameters
    ----------
    truth : (N, 3) float array
        True centroids in voxels, axis order z, y, x.
    found : (M, 3) float array
        Detected centroids, the best score first.
    max_distance_um, voxel_size_um
        As in `match_points`.

    Returns
    -------
    gains : (M,) int array
        For each detection the row of the truth that became matched when it was added, or -1:
        `(gains >= 0).cumsum()[k - 1]` is the largest number of pairs among the first k
        detections. A truth once matched stays matched (with changing partners).

    Examples
    --------
    >>> incremental_matching([[0, 0, 0], [0, 0, 3]], [[0, 0, 2], [0, 0, 1], [0, 0, 2]], 2,
    ...                      (1, 1, 1)).tolist()
    [1, 0, -1]
    """
    truth, found = check_points(truth, "truth"), check_points(found, "found")
    rows, columns, distances = near_pairs(truth, found, max_distance_um, voxel_size_um)
    order = np.lexsort((rows, distances, columns))
    ends = np.searchsorted(columns[order], np.arange(len(found) + 1))
    ordered, bounds = rows[order].tolist(), ends.tolist()
    neighbours = [ordered[a:b] for a, b in itertools.pairwise(bounds)]
    partner = [-1] * len(truth)
    dead = [False] * len(truth)
    gains = np.full(len(found), -1, dtype=np.int64)
    for k in range(len(found)):
        gains[k] = _augment(k, neighbours, partner, dead)
    return gains


def _augment(start: int, neighbours: list[list[int]], partner: list[int], dead: list[bool]) -> int:
    """Match `start` along a shortest augmenting path; return the true cell gained, or -1."""
    came_from: dict[int, int] = {}  # true cell -> the detection that reached it
    queue = [start]
    for node in queue:
        for row in neighbours[node]:
            if dead[row] or row in came_from:
                continue
            came_from[row] = node
            if partner[row] < 0:
                _flip(row, came_from, partner, start)
                return row
            queue.append(partner[row])
    for row in came_from:
        dead[row] = True
    return -1


def _flip(row: int, came_from: dict[int, int], partner: list[int], start: int) -> None:
    """Give every true cell on the path to `row` the detection that reached it."""
    held = {partner[r]: r for r in came_from if partner[r] >= 0}
    while True:
        taker = came_from[row]
        partner[row] = taker
        if taker == start:
            return
        row = held[taker]


def near_pairs(
    truth: np.ndarray, found: np.ndarray, max_distance_um: float, voxel_size_um: Iterable[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of a true and a found point within the distance, by KD-tree.

    Distances are computed from differences in voxels, so that shifting both sets by whole voxels
    changes none of them.

    Returns
    -------
    rows, columns : (E,) int arrays
        Row indices into `truth` and `found`.
    distances_um : (E,) float array
        Their distances, at most `max_distance_um` (1e-9 of it more, for rounding).
    """
    size = VoxelSize.of(voxel_size_um)
    check_distance(max_distance_um)
    limit = max_distance_um * (1 + DISTANCE_TOLERANCE)
    if not len(truth) or not len(found):
        empty = np.zeros(0, dtype=np.int64)
        return empty, empty, np.zeros(0)
    trees = KDTree(size.to_um(truth)), KDTree(size.to_um(found))
    reach = max_distance_um * (1 + 1e-6)
    n_edges = trees[0].count_neighbors(trees[1], reach)
    if n_edges > MOST_EDGES:
        raise VoxmillError(
            f"max_distance_um = {max_distance_um:g}: {n_edges} pairs of a true and a found point "
            f"lie within it (at most {MOST_EDGES:.0f} can be matched); expected a distance below "
            "the spacing of the cells, about half a cell diameter."
        )
    near = trees[0].sparse_distance_matrix(trees[1], reach, output_type="ndarray")
    rows, columns = near["i"].astype(np.int64), near["j"].astype(np.int64)
    distances = np.sqrt((size.to_um(truth[rows] - found[columns]) ** 2).sum(axis=1))
    keep = distances <= limit
    return rows[keep], columns[keep], distances[keep]


def check_points(points: np.ndarray, name: str) -> np.ndarray:
    """Return `points` as an (N, 3) float array; an empty sequence is (0, 3).

    Raises
    ------
    VoxmillError
        If the shape is another or a coordinate is not finite.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.size == 0:
        return np.zeros((0, 3))
    if points.ndim != 2 or points.shape[1] != 3:
        raise VoxmillError(
            f"{name}: expected points as an (N, 3) array of z, y, x, found shape {points.shape}"
        )
    if not np.isfinite(points).all():
        bad = int(np.flatnonzero(~np.isfinite(points).all(axis=1))[0])
        raise VoxmillError(f"{name}: point {bad} has a coordinate that is not finite")
    return points


def check_distance(max_distance_um: float) -> None:
    """Refuse a matching distance that is not positive and finite.

    Raises
    ------
    VoxmillError
    """
    if not (np.isfinite(max_distance_um) and max_distance_um > 0):
        raise VoxmillError(
            f"max_distance_um: expected a distance above 0, found {max_distance_um!r}"
        )
