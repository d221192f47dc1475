"""Difference of Gaussians: finds blobs, for any block size; the oracle is the best of all."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from voxmill.cells.table import COLUMNS, read_cells, write_cells
from voxmill.evaluation.baselines import (
    ArrayVolume,
    DogSettings,
    cells_table,
    difference_of_gaussians,
    find_cells_dog,
    find_cells_oracle,
)
from voxmill.evaluation.matching import match_points
from voxmill.evaluation.thresholds import best_threshold
from voxmill.runtime.errors import VoxmillError

SIZE = (2.0, 1.0, 1.0)


def blobs(points, shape=(20, 40, 40), diameter=8.0, height=1000.0):
    grid = np.indices(shape).reshape(3, -1).T
    volume = np.zeros(len(grid))
    for point in points:
        distance = np.linalg.norm((grid - point) * SIZE, axis=1)
        volume += height * np.exp(-0.5 * (distance / (diameter / 4)) ** 2)
    return volume.reshape(shape).astype(np.float32)


def test_filter_is_the_difference_of_two_gaussians():
    volume = np.random.default_rng(0).normal(size=(12, 14, 10)).astype(np.float32)
    sigma = np.array([0.6, 1.0, 1.0])
    wide = ndimage.gaussian_filter(volume, sigma * 1.6, mode="nearest", truncate=4)
    narrow = ndimage.gaussian_filter(volume, sigma, mode="nearest", truncate=7)
    assert difference_of_gaussians(volume, sigma) == pytest.approx(narrow - wide, abs=1e-3)


def test_finds_blobs_where_they_are():
    truth = np.array([[5, 10, 10], [5, 10, 25], [14, 28.3, 20.6]])
    points, scores = find_cells_dog(blobs(truth), DogSettings(8.0, threshold=5.0), SIZE)
    pairs = match_points(truth, points, 1.0, SIZE)
    assert len(pairs) == 3 and len(points) == 3
    assert (np.diff(scores) <= 0).all()


def test_blocks_change_nothing():
    rng = np.random.default_rng(1)
    volume = ndimage.gaussian_filter(rng.normal(size=(30, 40, 35)), 1.0).astype(np.float32) * 100
    whole = find_cells_dog(volume, DogSettings(6.0), SIZE)
    for block in (9, 16):
        cut = find_cells_dog(volume, DogSettings(6.0, block_vox=block), SIZE)
        assert cut[0] == pytest.approx(whole[0], abs=1e-6)
        assert cut[1] == pytest.approx(whole[1], rel=1e-5)


def test_best_threshold_by_hand():
    truth = np.array([[0, 0, 0], [0, 0, 10], [0, 0, 20.0]])
    points = np.array([[0, 0, 0], [0, 5, 5], [0, 0, 10], [0, 9, 9.0]])
    # Keeping 1, 2, 3, 4 of them: F1 = 2/4, 2/5, 4/6, 4/7.
    threshold, f1 = best_threshold(truth, points, np.array([9, 8, 7, 6.0]), 1.0, (1, 1, 1))
    assert (threshold, f1) == (7.0, pytest.approx(4 / 6))
    # Detections of one score stay together: 3 of 4 can't be kept.
    threshold, f1 = best_threshold(truth, points, np.array([9, 7, 7, 7.0]), 1.0, (1, 1, 1))
    assert (threshold, f1) == (7.0, pytest.approx(4 / 7))


def test_best_threshold_of_nothing():
    nothing = np.zeros((0, 3))
    assert best_threshold(nothing, nothing, np.zeros(0), 1.0, (1, 1, 1)) == (np.inf, 0.0)


def test_oracle_takes_the_best_scale_and_threshold():
    rng = np.random.default_rng(2)
    truth = np.array([[5, 10, 10], [5, 10, 25], [14, 28, 20], [12, 8, 33]])
    volume = blobs(truth) + rng.normal(scale=60, size=(20, 40, 40)).astype(np.float32)
    settings = DogSettings(8.0, scales=(0.4, 1.0, 2.0))
    points, _, choice = find_cells_oracle(volume, truth, settings, SIZE, 3.0)
    pairs = match_points(truth, points, 3.0, SIZE)
    assert choice["f1"] == pytest.approx(2 * len(pairs) / (len(points) + len(truth)))
    for scale in settings.scales:
        found, scores = find_cells_dog(volume, settings, SIZE, scale)
        assert best_threshold(truth, found, scores, 3.0, SIZE)[1] <= choice["f1"]


def test_table_is_a_table_of_cells(tmp_path):
    points = np.array([[5, 1, 2], [1, 2, 3.5]])
    table = cells_table(points, np.array([3.0, 2.0]), SIZE)
    assert list(table.columns) == list(COLUMNS)
    assert table["z_um"].tolist() == [2.0, 10.0] and table["score"].tolist() == [2.0, 3.0]
    write_cells(tmp_path / "cells.csv", table)
    read = read_cells(tmp_path / "cells.csv")
    pd.testing.assert_series_equal(read["x_vox"], table["x_vox"])


def test_a_window_of_an_array():
    array = np.arange(24).reshape(2, 3, 4)
    assert ArrayVolume(array).read_window((0, 1, 2), (1, 3, 4)).tolist() == [[[6, 7], [10, 11]]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"dog\.cell_diameter_um: missing: expected"),
        ({"cell_diameter_um": 5, "size": 1}, "dog: unknown key 'size'"),
        ({"cell_diameter_um": 0}, r"dog\.cell_diameter_um: expected a number > 0"),
        (
            {"cell_diameter_um": 5, "scales": [0]},
            r"dog\.scales: expected one or more numbers > 0, found \[0\]",
        ),
    ],
)
def test_senseless_settings(settings, message):
    with pytest.raises(VoxmillError, match=message):
        DogSettings.from_dict(settings)


def test_distance_follows_the_diameter():
    assert DogSettings(8.0).min_distance_um == 4.0
    assert dataclasses.replace(DogSettings(8.0), min_distance_um=3.0).min_distance_um == 3.0
