"""Phantoms: reproducible, with exact ground truth, hard for a difference of Gaussians."""

import dataclasses

import numpy as np
import pytest
import tifffile
from scipy.spatial import cKDTree

from voxmill.evaluation.baselines import DogSettings, find_cells_oracle
from voxmill.phantoms.make_phantom import (
    PhantomSettings,
    draw_labelled,
    draw_phantom,
    make_phantom,
)
from voxmill.runtime.errors import VoxmillError
from voxmill.volumes import read_header

SMALL = PhantomSettings(seed=3, shape_vox=(24, 48, 40))
NOTHING_BUT_CELLS = dataclasses.replace(
    SMALL,
    fibres_per_mm3=0.0,
    specks_per_mm3=0.0,
    vessels_per_mm3=0.0,
    stubs_per_cell=0.0,
    hollow=0.0,
    stripes=0.0,
    background_variation=0.0,
    background_photons=0.0,
    read_noise=0.0,
    attenuation_um=1e9,
    signal_photons=1000.0,
)


def test_same_seed_same_phantom():
    first, second = draw_phantom(SMALL), draw_phantom(SMALL)
    assert first[0].dtype == np.uint16 and first[0].shape == (24, 48, 40)
    assert np.array_equal(first[0], second[0]) and np.array_equal(first[1], second[1])
    other = draw_phantom(dataclasses.replace(SMALL, seed=4))
    assert not np.array_equal(first[0], other[0])


def test_truth_lies_in_the_volume_and_on_bright_voxels():
    volume, truth = draw_phantom(NOTHING_BUT_CELLS)
    assert len(truth) > 3
    index = np.rint(truth).astype(int)
    index = np.clip(index, 0, np.array(volume.shape) - 1)
    assert (truth >= -0.5).all() and (truth < np.array(volume.shape) - 0.5).all()
    at_centres = volume[tuple(index.T)].astype(float) - SMALL.offset
    assert at_centres.min() > 200
    # Far from every cell there is no light: the ground truth lacks no bright cell.
    grid = np.argwhere(np.ones(volume.shape, bool))
    size = np.array(SMALL.voxel_size_um)
    distance, _ = cKDTree(truth * size).query(grid * size)
    far = grid[distance > 20.0]
    assert len(far) > 0
    assert (volume[tuple(far.T)] <= SMALL.offset + 1).all()


def test_cells_hardly_overlap():
    _, truth = draw_phantom(dataclasses.replace(SMALL, touching=1.0, density_per_mm3=60000.0))
    tree = cKDTree(truth * SMALL.voxel_size_um)
    distance, _ = tree.query(tree.data, k=2)
    assert distance[:, 1].min() > 0.9 * SMALL.cell_diameter_um * np.exp(-2 * SMALL.size_spread)


def test_density_is_that_of_the_settings():
    settings = dataclasses.replace(SMALL, shape_vox=(64, 96, 96))
    counts = [len(draw_phantom(dataclasses.replace(settings, seed=s))[1]) for s in range(4)]
    volume_mm3 = np.prod(np.array(settings.shape_vox) * settings.voxel_size_um) * 1e-9
    assert np.mean(counts) == pytest.approx(settings.density_per_mm3 * volume_mm3, rel=0.3)


def test_a_difference_of_gaussians_misses_cells():
    settings = PhantomSettings(seed=11, shape_vox=(64, 128, 128))
    volume, truth = draw_phantom(settings)
    limit = settings.cell_diameter_um / 2
    _, _, choice = find_cells_oracle(
        volume, truth, DogSettings(settings.cell_diameter_um), settings.voxel_size_um, limit
    )
    assert 0.5 < choice["f1"] <= 0.88


def test_a_written_phantom_can_be_read(tmp_path):
    settings = {"seed": 5, "shape_vox": [12, 20, 16], "voxel_size_um": [3.0, 2.0, 1.0]}
    make_phantom(volume_path=tmp_path / "v.tif", truth_path=tmp_path / "t.csv", settings=settings)
    volume, truth = draw_phantom(PhantomSettings.from_dict(settings))
    assert np.array_equal(tifffile.imread(tmp_path / "v.tif"), volume)
    header = read_header(tmp_path / "v.tif")
    assert header.voxel_size_um == pytest.approx((3.0, 2.0, 1.0), rel=1e-4)
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert lines[0] == "z_vox,y_vox,x_vox"
    read = np.array([[float(v) for v in line.split(",")] for line in lines[1:]]).reshape(-1, 3)
    assert read == pytest.approx(truth, abs=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cells": 3}, "phantom: unknown key 'cells'"),
        ({"seed": -1}, r"phantom\.seed: expected an integer >= 0, found -1"),
        ({"shape_vox": [4, 20, 20]}, r"phantom\.shape_vox: expected three integers >= 8"),
        ({"shape_vox": 20}, r"phantom\.shape_vox: expected three integers"),
        ({"voxel_size_um": [0, 1, 1]}, r"phantom\.voxel_size_um: expected three numbers >= 1e-06"),
        ({"density_per_mm3": 0}, r"phantom\.density_per_mm3: expected a number > 0"),
        ({"touching": 1.5}, r"phantom\.touching: expected a number from 0 to 1, found 1.5"),
        ({"read_noise": float("nan")}, r"phantom\.read_noise: expected a number >= 0"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(VoxmillError, match=message):
        PhantomSettings.from_dict(settings)


def test_labels_are_the_cells_that_are_drawn(tmp_path):
    volume, truth, labels = draw_labelled(NOTHING_BUT_CELLS)
    assert labels.shape == volume.shape
    assert labels.dtype == np.uint32
    names = labels[tuple(np.clip(np.rint(truth), 0, np.array(labels.shape) - 1).astype(int).T)]
    assert (names == np.arange(1, len(truth) + 1)).mean() > 0.95, "a middle lies in its cell"
    bright = np.median(volume[labels > 0]) - np.median(volume[labels == 0])
    assert bright > 3 * volume[labels == 0].std()
    make_phantom(
        volume_path=tmp_path / "v.tif", truth_path=tmp_path / "t.csv",
        labels_path=tmp_path / "l.tif", settings=dataclasses.asdict(NOTHING_BUT_CELLS),
    )  # fmt: skip
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "l.tif"), labels)
