"""One-to-one matching against brute force and against what matching means."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxmill.evaluation import assignment, matching
from voxmill.evaluation.matching import incremental_matching, match_points, near_pairs
from voxmill.runtime.errors import VoxmillError

UNIT = (1.0, 1.0, 1.0)


def distance_um(a, b, voxel_size_um=UNIT):
    return float(np.sqrt((((np.asarray(a) - np.asarray(b)) * voxel_size_um) ** 2).sum()))


def brute_force(truth, found, max_distance_um, voxel_size_um=UNIT):
    """(pairs, total distance) of the best matching, by trying every one."""

    def best(rows, free):
        if not rows:
            return 0, 0.0
        options = [best(rows[1:], free)]
        for column in free:
            distance = distance_um(truth[rows[0]], found[column], voxel_size_um)
            if distance <= max_distance_um * (1 + 1e-9):
                count, total = best(rows[1:], free - {column})
                options.append((count + 1, total + distance))
        return min(options, key=lambda option: (-option[0], option[1]))

    return best(tuple(range(len(truth))), frozenset(range(len(found))))


def outcome(truth, found, pairs, voxel_size_um=UNIT):
    return len(pairs), sum(distance_um(truth[i], found[j], voxel_size_um) for i, j in pairs)


grid_points = st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=6)
voxel_sizes = st.sampled_from([UNIT, (5.0, 1.6, 1.6), (0.3, 0.1, 0.1)])


@settings(max_examples=300, deadline=None)
@given(grid_points, grid_points, st.floats(0.1, 6), voxel_sizes, st.sampled_from([1, 400]))
def test_equals_brute_force(truth, found, reach, voxel_size_um, dense_entries):
    """Both solvers (dense_entries 1: sparse for every component of more than one pair)."""
    max_distance_um = reach * voxel_size_um[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assignment, "DENSE_ENTRIES", dense_entries)
        pairs = match_points(truth, found, max_distance_um, voxel_size_um)
    count, total = brute_force(truth, found, max_distance_um, voxel_size_um)
    assert len(pairs) == count
    assert outcome(truth, found, pairs, voxel_size_um)[1] == pytest.approx(total, rel=1e-6)
    assert len(set(pairs[:, 0])) == len(set(pairs[:, 1])) == len(pairs)
    assert all(
        distance_um(truth[i], found[j], voxel_size_um) <= max_distance_um * (1 + 1e-9)
        for i, j in pairs
    )


@settings(max_examples=100, deadline=None)
@given(grid_points, grid_points, st.floats(0.5, 4), st.randoms(use_true_random=False))
def test_symmetric_and_independent_of_order(truth, found, reach, random):
    expected = outcome(truth, found, match_points(truth, found, reach, UNIT))
    swapped = outcome(found, truth, match_points(found, truth, reach, UNIT))
    shuffled = random.sample(found, len(found))
    reordered = outcome(truth, shuffled, match_points(truth, shuffled, reach, UNIT))
    assert swapped == pytest.approx(expected, rel=1e-6)
    assert reordered == pytest.approx(expected, rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(grid_points, grid_points, st.floats(0.5, 4), st.tuples(*[st.integers(0, 3000)] * 3))
def test_a_shift_of_both_changes_nothing(truth, found, reach, shift):
    pairs = match_points(truth, found, reach, (0.3, 0.1, 0.1))
    moved = [
        (np.reshape(p, (-1, 3)) + shift if len(p) else np.zeros((0, 3))) for p in (truth, found)
    ]
    np.testing.assert_array_equal(match_points(*moved, reach, (0.3, 0.1, 0.1)), pairs)


def test_most_pairs_beat_the_nearest_pair():
    truth, found = [[0, 0, 0], [0, 0, 3]], [[0, 0, 2.9], [0, 0, 5]]
    assert match_points(truth, found, 3, UNIT).tolist() == [[0, 0], [1, 1]]
    # With the second detection out of reach the nearer truth wins.
    assert match_points(truth, [found[0]], 3, UNIT).tolist() == [[1, 0]]


def test_a_long_chain_is_matched_in_full():
    """Every truth has two detections at reach but for the ends: one matching is complete."""
    n = 60
    truth = [[0, 0, 2.0 * i] for i in range(n)]
    found = [[0, 0, 2.0 * i + 1.1] for i in range(n)]
    pairs = match_points(truth, found, 1.1, UNIT)
    assert pairs.tolist() == [[i, i] for i in range(n)]


@pytest.mark.parametrize("z", [0, 1000, 2303])
def test_the_boundary_belongs_to_the_match(z):
    """3 x 0.3 is 0.8999... in floats: a distance equal to the limit matches at any place."""
    assert len(match_points([[z, 0, 0]], [[z + 3, 0, 0]], 0.9, (0.3, 1, 1))) == 1
    assert len(match_points([[z, 0, 0]], [[z + 3, 0, 0]], 0.9 - 1e-6, (0.3, 1, 1))) == 0


def test_anisotropic_voxels_count_in_micrometres():
    truth = [[0, 0, 0]]
    assert len(match_points(truth, [[1, 0, 0]], 4.9, (5, 1, 1))) == 0
    assert len(match_points(truth, [[0, 4, 0]], 4.9, (5, 1, 1))) == 1


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 3), (3, 0)])
def test_empty_sets(n, m):
    assert match_points(np.zeros((n, 3)), np.zeros((m, 3)), 1, UNIT).shape == (0, 2)
    assert (incremental_matching(np.zeros((n, 3)), np.zeros((m, 3)), 1, UNIT) == -1).all()


def test_duplicate_points_are_points():
    pairs = match_points([[1, 1, 1]] * 3, [[1, 1, 1]] * 2, 1, UNIT)
    assert len(pairs) == 2


@settings(max_examples=200, deadline=None)
@given(grid_points, grid_points, st.floats(0.5, 4))
def test_every_prefix_has_its_largest_matching(truth, found, reach):
    gains = incremental_matching(truth, found, reach, UNIT)
    sizes = (gains >= 0).cumsum()
    for k in range(1, len(found) + 1):
        assert sizes[k - 1] == brute_force(truth, found[:k], reach)[0]
    gained = gains[gains >= 0]
    assert len(set(gained)) == len(gained)


def test_incremental_and_full_matching_agree_where_all_is_one_component():
    rng = np.random.default_rng(3)
    truth, found = rng.random((300, 3)) * 12, rng.random((350, 3)) * 12
    rows, _, _ = near_pairs(truth, found, 2.0, UNIT)
    assert len(rows) > 3 * len(truth)
    pairs = match_points(truth, found, 2.0, UNIT)
    assert (incremental_matching(truth, found, 2.0, UNIT) >= 0).sum() == len(pairs)


def test_total_distance_of_a_large_component_is_the_least():
    """The sparse solver against the dense one on the whole, forbidden pairs at a high cost."""
    from scipy.optimize import linear_sum_assignment

    rng = np.random.default_rng(4)
    truth, found = rng.random((120, 3)) * 8, rng.random((110, 3)) * 8
    pairs = match_points(truth, found, 2.0, (2.0, 1.0, 1.0))
    distances = np.sqrt((((truth[:, None] - found) * (2, 1, 1)) ** 2).sum(-1))
    costs = np.where(distances <= 2.0, distances, 1e4)
    rows, columns = linear_sum_assignment(costs)
    chosen = costs[rows, columns]
    assert len(pairs) == (chosen < 1e4).sum()
    total = outcome(truth, found, pairs, (2.0, 1.0, 1.0))[1]
    assert total == pytest.approx(chosen[chosen < 1e4].sum(), rel=1e-7)


@pytest.mark.parametrize("smaller", [1, 10, 10**5, 10**8])
def test_costs_are_whole_numbers_whose_sums_are_exact(smaller):
    costs, forbidden = assignment._integer_costs(np.array([0.0, 0.5, 1.0]), 1.0, smaller)
    assert (costs == np.rint(costs)).all()
    assert costs.min() >= 1
    assert forbidden > smaller * costs.max()
    assert 4 * forbidden < 2**53


@pytest.mark.parametrize("distance", [0, -1, np.nan, np.inf])
def test_a_distance_not_above_zero_is_refused(distance):
    with pytest.raises(VoxmillError, match="max_distance_um: expected a distance above 0"):
        match_points([[0, 0, 0]], [[0, 0, 0]], distance, UNIT)


@pytest.mark.parametrize("size", [(1, 1), (1, 0, 1), (1, 1, -2), (1, np.nan, 1)])
def test_a_bad_voxel_size_is_refused(size):
    with pytest.raises(VoxmillError, match="voxel_size_um: expected three lengths above 0"):
        match_points([[0, 0, 0]], [[0, 0, 0]], 1, size)


def test_bad_points_are_refused():
    with pytest.raises(VoxmillError, match=r"truth: expected points as an \(N, 3\) array"):
        match_points([[0, 0]], [[0, 0, 0]], 1, UNIT)
    with pytest.raises(VoxmillError, match="found: point 1 has a coordinate that is not finite"):
        match_points([[0, 0, 0]], [[0, 0, 0], [0, np.nan, 0]], 1, UNIT)


def test_a_distance_that_pairs_everything_is_refused(monkeypatch):
    monkeypatch.setattr(matching, "MOST_EDGES", 8)
    with pytest.raises(VoxmillError, match="9 pairs of a true and a found point"):
        match_points(np.zeros((3, 3)), np.zeros((3, 3)), 1, UNIT)
