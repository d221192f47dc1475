"""Instance evaluation: against direct definitions, for every block, and on hand-made cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from voxmill.evaluation.instances import (
    THRESHOLDS,
    count_overlaps,
    labels_in_pieces,
    match_objects,
    scores_at,
    splits_and_merges,
)
from voxmill.evaluation.surfaces import compare_pairs, quality_by_size, surface_distances
from voxmill.geometry import VoxelSize
from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.blocks import ArrayVolume

UNIT = VoxelSize(1, 1, 1)


def overlaps_of(truth, found, **kwargs):
    return count_overlaps(ArrayVolume(np.asarray(truth)), ArrayVolume(np.asarray(found)), **kwargs)


def boxes(seed, shape=(12, 14, 16), number=9, jitter=2):
    """Two volumes of boxes: the second's are the first's, moved and some left out."""
    rng = np.random.default_rng(seed)
    truth, found = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for k in range(number):
        start = rng.integers(0, np.array(shape) - 3)
        edges = rng.integers(2, 6, 3)
        truth[tuple(slice(a, a + e) for a, e in zip(start, edges, strict=True))] = 3 * k + 1
        moved = np.maximum(start + rng.integers(-jitter, jitter + 1, 3), 0)
        if rng.random() < 0.85:
            found[tuple(slice(a, a + e) for a, e in zip(moved, edges, strict=True))] = 50 - k
    return truth, found


def by_definition(truth, found, threshold):
    """Dense overlaps and one assignment; stardist.matching weighs pairs below the threshold too."""
    names = [[k for k in np.unique(each) if k] for each in (truth, found)]
    ratios = np.array(
        [[((truth == a) & (found == b)).sum() / ((truth == a) | (found == b)).sum()
          for b in names[1]] for a in names[0]]
    ).reshape(len(names[0]), len(names[1]))  # fmt: skip
    able = ratios >= threshold
    costs = -able.astype(float) - able * ratios / (2 * max(1, min(ratios.shape)))
    chosen = linear_sum_assignment(costs)
    good = able[chosen]
    tp = int(good.sum())
    fp, fn = len(names[1]) - tp, len(names[0]) - tp
    total = ratios[chosen][good].sum()
    return tp, fp, fn, total


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10), st.sampled_from(THRESHOLDS))
def test_scores_are_those_of_the_definition(seed, number, threshold):
    truth, found = boxes(seed, number=number)
    tp, fp, fn, total = by_definition(truth, found, threshold)
    scores = scores_at(overlaps_of(truth, found), threshold)
    counts = ("true_positives", "false_positives", "false_negatives")
    assert tuple(scores[name] for name in counts) == (tp, fp, fn)
    if tp + fp + fn:
        assert scores["average_precision"] == pytest.approx(tp / (tp + fp + fn))
        quality = total / (tp + fp / 2 + fn / 2)
        assert scores["panoptic_quality"] == pytest.approx(quality, abs=1e-8)
    else:
        assert scores["average_precision"] is scores["panoptic_quality"] is None


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10), st.integers(1, 17), st.integers(1, 2))
def test_blocks_change_nothing(seed, number, block_vox, threads):
    truth, found = boxes(seed, number=number)
    one = overlaps_of(truth, found)
    two = overlaps_of(truth, found, block_vox=block_vox, threads=threads)
    for name in ("rows", "columns", "shared"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    for side in ("truth", "found"):
        for name in ("labels", "counts", "lower", "upper"):
            a, b = (getattr(getattr(each, side), name) for each in (one, two))
            np.testing.assert_array_equal(a, b)
    assert labels_in_pieces(ArrayVolume(truth), "truth", block_vox) == labels_in_pieces(
        ArrayVolume(truth), "truth"
    )


def row(text):
    return np.array([[[int(c) for c in text]]])


def test_splits_and_merges_by_hand():
    truth = row("0111111000222033304444")
    found = row("0111222000333333300000")
    overlaps = overlaps_of(truth, found)
    assert splits_and_merges(overlaps) == {"split_objects": 1, "merged_objects": 1}
    scores = scores_at(overlaps, 0.5)
    # Half of the first truth; three of nine voxels of the merged one.
    assert scores["true_positives"] == 1
    assert scores["segmentation_quality"] == 0.5
    assert scores["average_precision"] == 1 / (1 + 2 + 3)


def test_an_overlap_equal_to_the_threshold_counts():
    overlaps = overlaps_of(row("1111100000"), row("0011111000"))
    assert overlaps.ratios.tolist() == [3 / 7]
    assert scores_at(overlaps, 3 / 7)["true_positives"] == 1
    assert scores_at(overlaps, 0.43)["true_positives"] == 0


def test_most_pairs_come_before_the_best_overlap():
    """Object 1 overlaps both; taking its best partner would leave the other without one."""
    truth, found = row("1111112222222200"), row("3333444444000000")
    overlaps = overlaps_of(truth, found)
    pairs, _ = match_objects(overlaps, 0.1)
    assert pairs.tolist() == [[0, 0], [1, 1]]


def test_surfaces_by_hand():
    one = np.zeros((9, 9, 9), bool)
    one[3:6, 3:6, 3:6] = True
    two = np.zeros_like(one)
    two[3:6, 3:6, 5:8] = True
    farthest, mean = surface_distances(one, two, VoxelSize(1, 1, 0.5))
    assert farthest == 1.0
    # Of 26 surface voxels (the middle is inside) nine are 1.0 away, eight 0.5, and nine shared.
    assert mean == pytest.approx((9 * 1.0 + 8 * 0.5) / 26)
    assert surface_distances(one, one, UNIT) == (0.0, 0.0)


def test_pairs_and_classes_of_size():
    truth, found = np.zeros((2, 10, 10, 40), np.uint16)
    for k, edge in enumerate((2, 3, 4, 6)):
        x = 10 * k
        truth[1 : 1 + edge, 1 : 1 + edge, x : x + edge] = k + 1
        found[1 : 1 + edge, 1 : 1 + edge, x : x + edge] = 9 - k
    found[found == 9] = 0  # the smallest is missed
    found[1:5, 1:5, 24] = 7  # the third is one layer thicker
    size = VoxelSize(2, 1, 1)
    volumes = ArrayVolume(truth), ArrayVolume(found)
    overlaps = count_overlaps(*volumes)
    pairs = compare_pairs(overlaps, *volumes, size)
    assert pairs.rows.tolist() == [1, 2, 3]
    assert pairs.ratios.tolist() == [1, 0.8, 1]
    assert pairs.hausdorff95_um.tolist() == [0, 1, 0]
    classes = quality_by_size(overlaps, pairs, size, classes=2)
    assert [c["true_objects"] for c in classes] == [2, 2]
    assert [c["matched_share"] for c in classes] == [0.5, 1.0]
    assert (classes[0]["from_um3"], classes[1]["to_um3"]) == (16, 432)
    assert classes[1]["volume_error"] == 0.125
    assert classes[0]["volume_error"] == 0


def test_the_pairs_do_not_need_whole_volumes():
    truth, found = boxes(3)

    class Window(ArrayVolume):
        largest = 0

        def read_window(self, start, stop):
            volume = int(np.prod(np.subtract(stop, start)))
            type(self).largest = max(type(self).largest, volume)
            return super().read_window(start, stop)

    overlaps = overlaps_of(truth, found)
    compare_pairs(overlaps, Window(truth), Window(found), UNIT, 0.3)
    assert 0 < Window.largest < truth.size / 4


def test_one_label_in_two_pieces_is_named():
    assert labels_in_pieces(ArrayVolume(row("110022011033")), "x") == {1: 2}
    diagonal = np.zeros((2, 2, 2), int)
    diagonal[0, 0, 0] = diagonal[1, 1, 1] = 5
    assert labels_in_pieces(ArrayVolume(diagonal), "x") == {}


@pytest.mark.parametrize("value", [0.5, -1, np.nan, 2.0**32])
def test_what_is_no_label_is_refused(value):
    bad = np.zeros((2, 2, 2))
    bad[0, 1, 0] = value
    with pytest.raises(VoxmillError, match=r"labels: expected labels as whole numbers.*found"):
        overlaps_of(np.zeros((2, 2, 2), int), bad)


def test_labels_up_to_the_largest_of_uint32():
    truth = row("110").astype(np.uint32) * np.uint32(2**32 - 1)
    overlaps = overlaps_of(truth, truth.astype(np.uint64))
    assert overlaps.truth.labels.tolist() == [2**32 - 1]
    assert scores_at(overlaps, 0.9)["panoptic_quality"] == 1


def test_other_shapes_are_refused():
    with pytest.raises(VoxmillError, match="labels: expected labels of the shape"):
        overlaps_of(np.zeros((2, 2, 2), int), np.zeros((2, 2, 3), int))


def test_empty_volumes():
    nothing, one = np.zeros((3, 3, 3), int), np.zeros((3, 3, 3), int)
    one[1, 1, 1] = 1
    assert scores_at(overlaps_of(nothing, nothing), 0.5)["average_precision"] is None
    assert scores_at(overlaps_of(one, nothing), 0.5)["average_precision"] == 0
    assert scores_at(overlaps_of(nothing, one), 0.5)["panoptic_quality"] == 0
    assert splits_and_merges(overlaps_of(one, nothing))["split_objects"] == 0
