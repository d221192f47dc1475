"""Test-time augmentation over flips."""

import numpy as np
import pytest

from voxmill.config.networks import MSDNetSettings
from voxmill.engine.backends import forward
from voxmill.networks import build
from voxmill.prediction.box import PredictionSettings, predict
from voxmill.prediction.flips import over_flips
from voxmill.runtime.errors import VoxmillError


@pytest.mark.parametrize("axes", [(), (1,), (0, 2), (0, 1, 2)])
def test_result_is_equivariant(axes):
    network = build("msdnet", MSDNetSettings(depth=3))
    volume = np.random.default_rng(0).normal(size=(1, 5, 6, 7)).astype(np.float32)

    def predict(box):
        return over_flips(lambda v: forward(network, v, backend="torch"), box, axes)

    found = predict(volume)
    assert found.dtype == np.float32
    for axis in axes:
        mirrored = predict(np.ascontiguousarray(np.flip(volume, axis + 1)))
        np.testing.assert_allclose(np.flip(mirrored, axis + 1), found, atol=1e-6)
    if axes:
        assert np.abs(found - forward(network, volume, backend="torch")).max() > 1e-4


def test_number_of_evaluations():
    calls = []
    over_flips(lambda v: calls.append(v) or v, np.zeros((1, 2, 2, 2), np.float32), (0, 1))
    assert len(calls) == 4


def test_setting_is_the_mean_over_eight_mirror_images():
    network = build("msdnet", MSDNetSettings(depth=3))
    voxels = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    settings = {"backend": "torch", "device": "cpu"}
    plain, flipped = (
        predict(network, voxels, PredictionSettings(**settings, flips=flips), 1)
        for flips in (False, True)
    )
    whole = over_flips(lambda v: forward(network, v, backend="torch"), voxels[None])
    np.testing.assert_array_equal(flipped, whole)
    assert np.abs(flipped - plain).max() > 1e-4


def test_setting_is_true_or_false():
    with pytest.raises(VoxmillError, match=r"prediction.flips: expected true or false, found 1"):
        PredictionSettings(flips=1)


@pytest.mark.parametrize("axes", [(0, 0), (3,), (-1,)])
def test_wrong_axes(axes):
    with pytest.raises(ValueError, match="expected different axes out of 0, 1, 2"):
        over_flips(lambda v: v, np.zeros((1, 2, 2, 2), np.float32), axes)
