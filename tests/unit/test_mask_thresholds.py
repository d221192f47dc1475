"""The benchmark that finds at which grey value a mask ends."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import mask_thresholds


def test_a_mask_that_ends_at_a_grey_value_is_split_there_without_error():
    grey = np.zeros((1, 3, 12), np.uint16)
    grey[0, 1] = [1, 4, 9, 12, 30, 11, 6, 2, 0, 0, 50, 0]
    mask = np.zeros(grey.shape, bool)
    mask[0, 1, 2:6] = True
    # The bright voxel at the end is left out of the mask; it is no part of its surroundings.
    assert mask_thresholds.best_split(grey, mask) == (9, 1.0)


def test_the_dice_index_of_a_mask_that_no_grey_value_splits():
    grey = np.array([[[7, 5, 9, 4, 4]]])
    mask = np.array([[[False, True, True, False, False]]])
    # Near the mask lie 7, 5, 9, 4. From 9 on Dice is 2 * 1 / (1 + 2), from 7 on 2 * 1 / (2 + 2),
    # from 5 on 2 * 2 / (3 + 2), from 4 on 2 * 2 / (4 + 2).
    assert mask_thresholds.best_split(grey, mask) == (5, 0.8)


def test_centroids_of_components_that_are_large_enough():
    mask = np.zeros((3, 4, 8), bool)
    mask[1, 1, 1:4] = True
    mask[2, 3, 7] = True
    np.testing.assert_array_equal(mask_thresholds.centroids(mask, 1), [[1, 1, 2], [2, 3, 7]])
    np.testing.assert_array_equal(mask_thresholds.centroids(mask, 2), [[1, 1, 2]])
    assert mask_thresholds.centroids(mask, 4).shape == (0, 3)
