"""Local normalisation: maps by hand, and the same voxel in any window."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxmill.config.base import SettingError
from voxmill.config.normalisation import Normalisation
from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.blocks import ArrayVolume
from voxmill.volumes.grey_blocks import BlockPass, block_edges, measure_blocks
from voxmill.volumes.grey_maps import GreyMaps, cell_contrast, make_maps

LOCAL = {"kind": "local"}


def measure_maps(array, voxel_size_um, card):
    """Maps of a volume for the settings of a card."""
    blocks = measure_blocks(ArrayVolume(array), voxel_size_um)
    return make_maps(blocks, Normalisation.from_dict(card))


def test_levels_of_blocks_by_hand():
    """Two blocks of 4 x 4 x 4 voxels, 0 to 63 and 100 to 163: every voxel is looked at."""
    values = np.arange(64.0).reshape(4, 4, 4)
    array = np.concatenate([values, values + 100], axis=2).astype(np.float32)
    blocks = measure_blocks(ArrayVolume(array), (4.0, 4.0, 4.0))
    assert (blocks.edge_vox, blocks.edge_um) == ((4, 4, 4), (16.0, 16.0, 16.0))
    assert blocks.level(50.0).ravel().tolist() == [31.5, 131.5]
    np.testing.assert_allclose(blocks.level(5.0).ravel(), [3.15, 103.15], rtol=1e-6)
    np.testing.assert_allclose(blocks.level(95.0).ravel(), [59.85, 159.85], rtol=1e-6)


def test_a_block_that_the_border_cuts_holds_its_own_voxels():
    array = np.zeros((4, 4, 6), np.uint16)
    array[..., 4:] = 7
    blocks = measure_blocks(ArrayVolume(array), (4.0, 4.0, 4.0))
    assert blocks.level(5.0).ravel().tolist() == blocks.level(95.0).ravel().tolist() == [0, 7]


def test_edges_grow_where_blocks_would_be_too_many():
    assert block_edges((20480, 20480, 20480), (0.5, 0.5, 0.5)) == (64, 64, 64)
    assert block_edges((3, 100, 100), (50.0, 1.0, 1.0)) == (3, 16, 16)


def test_large_blocks_are_thinned():
    blocks = BlockPass((64, 64, 64), (32, 32, 32))
    looked_at = np.prod([-(-32 // step) for step in blocks.steps])
    assert 64 <= looked_at <= 128
    assert [z for z in range(40) if blocks.wants(z)] == [0, 10, 20, 30, 32]


def test_interpolation_by_hand():
    """Centres of blocks of 4 voxels lie at 1.5 and 5.5: voxel 3 lies 3/8 of the way."""
    background = np.array([0.0, 8.0], np.float32).reshape(1, 1, 2)
    maps = GreyMaps((4, 4, 4), background, 2.0, 10.0)
    found = maps.normalise(np.full((1, 1, 8), 10, np.uint16), (0, 0, 0))
    # The background is 0, 0, 1, 3, 5, 7, 8, 8.
    assert found.ravel().tolist() == [5, 5, 4.5, 3.5, 2.5, 1.5, 1, 1]
    assert maps.normalise(np.full((1, 1, 1), 100, np.uint16), (0, 0, 0)).item() == 10


def test_background_goes_and_one_contrast_stays():
    """Two halves, of background 100 and 1000, and the same noise: the same after all."""
    rng = np.random.default_rng(0)
    array = rng.normal(0, 5, (32, 32, 256)).astype(np.float32) + 100
    array[..., 128:] += 900
    found = measure_maps(array, None, LOCAL | {"scale": 1.0}).normalise(array, (0,) * 3)
    left, right = found[..., :96], found[..., 160:]
    assert abs(np.median(left)) < 0.05 and abs(np.median(right)) < 0.05
    # The contrast is the 95th percentile less the median.
    np.testing.assert_allclose(np.percentile(left, 95), 1, atol=0.05)


@pytest.mark.parametrize("follow", [0.0, 0.5, 1.0])
def test_contrast_of_the_place(follow):
    """Noise of 5 and of 20: ratio 4 without following, 2 by half, 1 in full."""
    rng = np.random.default_rng(0)
    array = rng.normal(0, 5, (32, 32, 256)).astype(np.float32)
    array[..., 128:] *= 4
    settings = LOCAL | {"follow": follow, "floor": 0.0}
    found = measure_maps(array, None, settings).normalise(array, (0, 0, 0))
    ratio = found[..., 176:].std() / found[..., :80].std()
    np.testing.assert_allclose(ratio, 4 ** (1 - follow), rtol=0.03)


def test_the_floor_keeps_empty_places_quiet():
    rng = np.random.default_rng(0)
    array = rng.normal(0, 20, (16, 16, 320)).astype(np.float32)
    array[..., :64] *= 0.01
    settings = LOCAL | {"follow": 1.0, "floor": 0.5, "scale": 1.0}
    found = measure_maps(array, None, settings).normalise(array, (0, 0, 0))
    assert found[..., :32].std() < 0.02 < 0.4 < found[..., 128:].std()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_voxel_is_the_same_in_any_window(data):
    shape = data.draw(st.tuples(*[st.integers(5, 40)] * 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    array = rng.integers(0, 5000, shape).astype(np.uint16)
    card = LOCAL | {"follow": data.draw(st.sampled_from([0.0, 0.5])), "background_um": 30.0}
    maps = measure_maps(array, (1.5, 3.0, 2.0), card)
    whole = maps.normalise(array, (0, 0, 0))
    start = [data.draw(st.integers(0, n - 1)) for n in shape]
    stop = [data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)]
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    np.testing.assert_array_equal(maps.normalise(array[box], start), whole[box])


def test_blocks_outside_of_the_tissue_do_not_count_near_it():
    array = np.zeros((16, 16, 64), np.float32)
    array[..., 16:] = np.random.default_rng(0).normal(500, 5, (16, 16, 48))
    tissue = np.array([False, True, True, True]).reshape(1, 1, 4)
    card = Normalisation.from_dict(LOCAL | {"background_um": 32.0})
    blocks = measure_blocks(ArrayVolume(array))
    assert make_maps(blocks, card).background[0, 0, 1] < 450
    np.testing.assert_allclose(make_maps(blocks, card, tissue).background[0, 0, 1:], 500, atol=3)


def test_constant_tissue_is_refused():
    with pytest.raises(VoxmillError, match=r"most blocks .* constant. Choose kind global"):
        measure_maps(np.full((20, 20, 20), 7, np.uint8), None, LOCAL)


def test_keys_of_the_other_kind_are_refused():
    with pytest.raises(
        SettingError, match=r"normalisation\.low: expected no such key with kind loc"
    ):
        Normalisation.from_dict({"kind": "local", "low": 5.0})
    with pytest.raises(SettingError, match="follow: expected no such key with kind global"):
        Normalisation.from_dict({"follow": 0.5})
    assert Normalisation.from_dict({}).plain() == {
        "kind": "global",
        "low": 5.0,
        "high": 99.0,
        "clip": 10.0,
    }


def test_contrast_of_cells_by_hand():
    """Two regions of 2 x 1 x 1 blocks: contrasts 1 and 3 scatter by 1, contrasts 5 and 15 by 5."""
    spread = np.array([1.0, 3.0, 5.0, 15.0]).reshape(4, 1, 1)
    everywhere = np.ones((4, 1, 1), bool)
    assert cell_contrast(spread, everywhere, (160.0, 16.0, 16.0)) == 3.0
    # A region with too little tissue does not count; where none has enough, all tissue is one.
    assert cell_contrast(spread, everywhere & (spread < 5), (160.0, 16.0, 16.0)) == 1.0
    few = np.zeros((40, 1, 1), bool)
    few[:2] = True
    spread = np.arange(40.0).reshape(40, 1, 1)
    assert cell_contrast(spread, few, (32.0, 16.0, 16.0)) == 0.5


def test_cells_set_the_contrast_and_texture_does_not():
    rng = np.random.default_rng(0)
    array = rng.normal(1000, 10, (40, 40, 40)).astype(np.float32)
    for z, y, x in rng.integers(2, 36, (12, 3)):
        array[z : z + 4, y : y + 4, x : x + 4] += 500
    brighter = 1000 + (array - 1000) * np.where(array > 1200, 2, 1)
    scales = []
    for kind in ("texture", "cells"):
        settings = LOCAL | {"contrast": kind}
        first, second = (
            measure_maps(a, (4.0, 4.0, 4.0), settings).contrast for a in (array, brighter)
        )
        scales.append(second / first)
    assert scales[0] == pytest.approx(1.0, abs=0.05)
    assert scales[1] == pytest.approx(2.0, abs=0.2)
