"""Measures of labelled cells: against scikit-image, by hand, and for every block size."""

import math

import numpy as np
import pandas as pd
import pytest
from skimage.measure import regionprops

from voxmill.cells.measurements import MEASURES, measure_cells, nearest_um
from voxmill.geometry import VoxelSize
from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.blocks import ArrayVolume

FLAT = (3.0, 1.0, 1.0)


def ellipsoid(shape, centre, radii):
    grid = np.indices(shape).transpose(1, 2, 3, 0)
    return (((grid - centre) / radii) ** 2).sum(axis=-1) <= 1


def volume_of(places, radii, shape=(16, 30, 34)):
    labels = np.zeros(shape, np.uint32)
    for k, (place, radius) in enumerate(zip(places, radii, strict=True)):
        labels[ellipsoid(shape, place, radius) & (labels == 0)] = k + 1
    table = pd.DataFrame(places, columns=["z_vox", "y_vox", "x_vox"])
    table.insert(0, "id", np.arange(1, len(places) + 1))
    return labels, table


PLACES = [[3.0, 8.2, 9.0], [10.0, 8.0, 20.0], [9.0, 21.0, 9.4], [14.0, 24.0, 30.0]]
RADII = [(2, 4, 5), (3, 5, 4), (2, 6, 3), (2, 4, 4)]


def measured(labels, image, table, size=FLAT, **kwargs):
    return measure_cells(ArrayVolume(labels), ArrayVolume(image), table, size, (5, 8, 8), **kwargs)


def test_size_and_axes_are_those_of_scikit_image():
    labels, table = volume_of(PLACES, RADII)
    image = np.random.default_rng(0).integers(50, 900, labels.shape).astype(np.uint16)
    found = measured(labels, image, table)
    for row, region in zip(
        found.itertuples(), regionprops(labels, image, spacing=FLAT), strict=True
    ):
        assert row.volume_um3 == pytest.approx(region.area)
        assert row.equivalent_diameter_um == pytest.approx(region.equivalent_diameter_area)
        assert row.mean_intensity == pytest.approx(region.intensity_mean)
        assert row.integrated_intensity == image[labels == region.label].sum()
        # scikit-image takes voxels for points, which have no extent of their own.
        moments = np.linalg.eigvalsh(region.inertia_tensor)
        own = sum(edge**2 / 12 for edge in FLAT)
        squares = row.axis_1_um**2 + row.axis_2_um**2 + row.axis_3_um**2
        assert squares == pytest.approx(20 * (moments.sum() / 2 + own))
        assert row.axis_1_um >= row.axis_2_um >= row.axis_3_um


def test_a_large_ball_is_a_ball():
    labels, table = volume_of([[20, 20, 20]], [(10, 10, 10)], (41, 41, 41))
    image = np.where(labels > 0, 300, 100)
    row = measure_cells(
        ArrayVolume(labels), ArrayVolume(image), table, (2, 2, 2), (12, 12, 12)
    ).iloc[0]
    assert row.equivalent_diameter_um == pytest.approx(40, rel=0.02)
    for axis in ("axis_1_um", "axis_2_um", "axis_3_um"):
        assert row[axis] == pytest.approx(40, rel=0.02)
    assert row.surface_um2 == pytest.approx(math.pi * 40**2, rel=0.12)
    assert 0.9 < row.sphericity < 1
    assert (row.mean_intensity, row.background, row.contrast) == (300, 100, 2)
    assert row.corrected_intensity == 200 * (labels > 0).sum()
    assert math.isnan(row.nearest_um)
    assert row.at_border == 0


@pytest.mark.parametrize("block_vox", [3, 8, 17])
def test_blocks_change_nothing(block_vox):
    labels, table = volume_of(PLACES, RADII)
    image = np.random.default_rng(0).normal(100, 20, labels.shape).astype(np.float32)
    pd.testing.assert_frame_equal(
        measured(labels, image, table),
        measured(labels, image, table, block_vox=block_vox, threads=2),
    )


def test_border_background_and_single_voxels():
    labels, table = volume_of(PLACES, RADII)
    assert measured(labels, labels, table)["at_border"].tolist() == [0, 0, 0, 1]
    labels = np.zeros((5, 5, 5), np.uint32)
    labels[2, 2, 2] = 1
    table = pd.DataFrame({"id": [1, 2], "z_vox": [2.2, 4], "y_vox": [2.0, 4], "x_vox": [1.8, 4]})
    row, nothing = measured(labels, np.zeros((5, 5, 5)), table, (1, 1, 1)).itertuples()
    assert row.volume_um3 == 1
    assert row.axis_1_um == row.axis_3_um == pytest.approx(2 * math.sqrt(5 / 12))
    assert row.background == 0
    assert math.isnan(row.contrast)
    assert nothing.volume_um3 == 0
    assert math.isnan(nothing.mean_intensity)
    full = measured(np.ones((5, 5, 5), int), np.zeros((5, 5, 5)), table.iloc[:1], (1, 1, 1))
    assert math.isnan(full["background"][0])


def test_distance_to_the_nearest():
    points = VoxelSize(2, 1, 1).to_um([[0, 0, 0], [1, 0, 0], [0, 0, 5]])
    assert nearest_um(points).tolist() == [2, 2, 5]
    assert len(nearest_um(np.zeros((0, 3)))) == 0


def test_no_cells_and_other_shapes():
    table = pd.DataFrame(columns=["id", "z_vox", "y_vox", "x_vox"])
    assert list(measured(np.zeros((3, 3, 3), int), np.zeros((3, 3, 3)), table)) == list(MEASURES)
    with pytest.raises(VoxmillError, match="expected labels of the image's shape"):
        measured(np.zeros((3, 3, 3), int), np.zeros((3, 3, 4)), table)
