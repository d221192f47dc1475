"""Whether a volume looks like the training volumes of a model."""

import dataclasses
import re

import numpy as np
import pytest

from voxmill.config.base import SettingError
from voxmill.geometry import Box
from voxmill.networks.models import ModelCard
from voxmill.volumes.appearance import block_values, density_per_mm3, joined, seen_in, unlike
from voxmill.volumes.grey_blocks import GreyBlocks
from voxmill.volumes.grey_values import GreyValues
from voxmill.volumes.tissue import Tissue

GLOBAL = {"low": 5.0, "high": 99.0, "clip": 10.0}
LOCAL = {"kind": "local", "scale": 2.0}


def grey_of(median, spread, tissue=None):
    """Blocks of 10 voxels of 2 um in a row, with given medians and spreads (95 % less 50 %)."""
    median = np.asarray(median, np.float32).reshape(1, 1, -1)
    spread = np.broadcast_to(np.asarray(spread, np.float32), median.shape)
    levels = np.stack([median - spread, median, median + spread])
    shape, edge = (10, 10, 10 * median.size), (10, 10, 10)
    mask = np.ones(median.shape, bool) if tissue is None else np.reshape(tissue, median.shape)
    blocks = GreyBlocks(shape, edge, (20.0,) * 3, levels)
    statistics = {"percentiles": {"5": 100.0, "99": 300.0}}
    return GreyValues(statistics, blocks, Tissue(shape, edge, mask))


def test_block_values_by_hand():
    values = block_values(grey_of([100, 200, 500], 50, [True, True, False]), GLOBAL)
    assert values["background"].tolist() == [0, 0.5]
    assert values["contrast"].tolist() == [0.25, 0.25]
    local = block_values(grey_of([200] * 5, 50), LOCAL)
    np.testing.assert_allclose(local["background"], 0, atol=1e-6)
    np.testing.assert_allclose(local["contrast"], 0.5)


def test_density_by_hand():
    """Two of four blocks of 20 um are tissue: 16e-6 cubic millimetres."""
    grey = grey_of([100] * 4, 50, [True, True, False, False])
    assert density_per_mm3(grey, 8) == pytest.approx(8 / 16e-6)
    assert density_per_mm3(grey, 8, Box((0, 0, 0), (10, 10, 10))) == pytest.approx(8 / 8e-6)


def test_a_training_volume_is_like_itself():
    grey = grey_of(np.linspace(100, 300, 40), np.linspace(20, 60, 40))
    for normalisation in (GLOBAL, LOCAL):
        assert unlike(seen_in(grey, normalisation, cells=5), grey, normalisation, 5) == []


@pytest.mark.parametrize(
    ("median", "spread", "cells", "words"),
    [
        (200, 5, 4, ["nothing this dim: 100% of the tissue has a normalised contrast below"]),
        (200, 200, 4, ["nothing this full of contrast"]),
        (900, 40, 4, ["nothing this bright"]),
        (10, 40, 4, ["nothing this dark"]),
        (200, 40, 7, ["nothing this crowded: .* cells found per cubic millimetre of tissue"]),
        (200, 40, 6, []),
    ],
)
def test_what_a_model_has_not_seen(median, spread, cells, words):
    seen = seen_in(grey_of(np.linspace(100, 300, 40), np.linspace(20, 60, 40)), GLOBAL, cells=40)
    found = unlike(seen, grey_of([median] * 4, spread), GLOBAL, cells)
    assert len(found) == len(words)
    for sentence, expected in zip(found, words, strict=True):
        assert re.search(expected, sentence)


def test_a_part_of_the_tissue_may_differ():
    seen = {"contrast": [0.1, 0.3]}
    spread = [40.0] * 8 + [5.0] * 2
    assert unlike(seen, grey_of([200] * 10, spread), GLOBAL) == []
    spread[0] = 5
    assert len(unlike(seen, grey_of([200] * 10, spread), GLOBAL)) == 1


def test_cards_without_the_field_say_nothing():
    assert unlike({}, grey_of([200] * 4, 5), GLOBAL, 10**6) == []


def test_the_card_holds_what_several_volumes_looked_like():
    one, two = (seen_in(grey_of([m] * 4, 40), GLOBAL, cells=m) for m in (100, 300))
    seen = joined([one, two])
    assert seen["background"] == [0, 1]
    assert seen["density_per_mm3"] == [pytest.approx(100 / 32e-6), pytest.approx(300 / 32e-6)]
    card = ModelCard("m", "msdnet", {}, seen=seen)
    assert dataclasses.asdict(card)["seen"] == seen
    with pytest.raises(
        SettingError, match=r"seen\.contrast: expected numbers .2 of them., found 3"
    ):
        ModelCard("m", "msdnet", {}, seen={"contrast": 3})
