"""Levels of each cell's own, by hand; that tiles do not matter is in test_phantom_labels."""

import numpy as np
import pytest

from voxmill.cells.contrast import own_levels
from voxmill.cells.foreground import read_foreground
from voxmill.cells.outlines import outline_block
from voxmill.cells.seeds import Seeds
from voxmill.config.objects import ObjectSettings
from voxmill.engine.build import compiler
from voxmill.geometry import Box, VoxelSize
from voxmill.volumes.blocks import ArrayVolume

SIZE = VoxelSize(1, 1, 1)
SETTINGS = ObjectSettings(foreground="image", threshold=0.45, largest_radius_um=8.0)


def cell(core=500.0, rim=300.0):
    """A territory of 3 x 3 x 5 voxels: a core of three columns, at half of its light two others."""
    grey = np.full((9, 9, 11), 100, np.float32)
    numbers, levels = np.zeros(grey.shape, np.int32), np.zeros(grey.shape, np.uint8)
    grey[3:6, 3:6, 3:8], grey[3:6, 3:6, 4:7] = rim, core
    numbers[3:6, 3:6, 3:8] = 1
    levels[3:6, 3:6, 3:8], levels[3:6, 3:6, 4:7] = 90, 200
    return levels, grey, numbers


def own(levels, grey, numbers, wanted=True):
    return own_levels(levels, grey, numbers, np.array([wanted]), SIZE, SETTINGS)


def test_levels_lie_between_the_surroundings_and_the_plateau():
    levels, grey, numbers = cell()
    found = own(levels, grey, numbers)
    assert found[4, 4].tolist() == [0, 0, 0, 128, 255, 255, 255, 128, 0, 0, 0]
    assert (levels[4, 4, 3:8] == [90, 200, 200, 200, 90]).all(), "what was given is not changed"
    # A few voxels far brighter or darker change neither plateau nor surroundings.
    grey[4, 4, 5], grey[0, :, :] = 60_000, 0
    np.testing.assert_array_equal(own(levels, grey, numbers), found)


@pytest.mark.parametrize("why", ["unwanted", "darker", "no core", "no surroundings"])
def test_levels_stay_where_there_is_nothing_to_compare(why):
    levels, grey, numbers = cell(core=50.0) if why == "darker" else cell()
    if why == "no core":
        levels = np.minimum(levels, 127)
    if why == "no surroundings":
        numbers[numbers == 0] = 2
    found = own(levels, grey, numbers, wanted=why != "unwanted")
    np.testing.assert_array_equal(found, levels)


@pytest.mark.skipif(compiler() is None, reason="no C++ compiler")
def test_a_brighter_neighbour_does_not_change_a_volume():
    """A cube of 6 x 6 x 6 voxels, three voxels from another with two and a half times its light."""
    grey = np.full((20, 20, 30), 100, np.uint16)
    grey[7:13, 7:13, 6:12], grey[7:13, 7:13, 15:21] = 500, 1100
    seeds = Seeds(np.array([[9.5, 9.5, 8.5], [9.5, 9.5, 17.5]]), np.array([1, 2]))
    whole = Box.from_shape(grey.shape)
    levels, smooth = read_foreground(ArrayVolume(grey), whole, SIZE, SETTINGS)
    given = levels, (0, 0, 0), whole, whole, seeds, SIZE, SETTINGS
    before, after = (
        np.bincount(outline_block(*given, grey=use).ravel(), minlength=3) for use in (None, smooth)
    )
    assert before[1] < 0.9 * 216, "against the brightest around, the cube's near side is lost"
    np.testing.assert_allclose(after[1:], 216, rtol=0.1)
