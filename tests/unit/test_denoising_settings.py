"""Settings of a denoising run."""

import json

import pytest
from torch import nn

from voxmill.config.denoising import DenoiseSettings, plain_settings
from voxmill.runtime.errors import VoxmillError


def test_no_keys_give_the_defaults():
    assert DenoiseSettings.from_dict({}) == DenoiseSettings()


def test_plain_settings_survive_json():
    chosen = DenoiseSettings.from_dict(
        {
            "network": {"down": [8, 16], "up": [8, 8], "skip": [0, 4]},
            "stop": {"rule": "variance", "window": 10},
            "precision": "bfloat16",
            "sigma": 3.5,
        }
    )
    assert chosen.network.down == (8, 16)
    assert chosen.stop.window == 10
    assert DenoiseSettings.from_dict(json.loads(json.dumps(plain_settings(chosen)))) == chosen


def test_an_activation_module_is_recorded_by_its_name():
    chosen = DenoiseSettings.from_dict({"network": {"activation": nn.Tanh}})
    assert "Tanh" in plain_settings(chosen)["network"]["activation"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"iteration": 5}, "denoising: unknown key 'iteration'; did you mean 'iterations'"),
        ({"network": {"width": 5}}, r"denoising\.network: unknown key 'width'; the known ones are"),
        (
            {"stop": {"rules": "fixed"}},
            r"denoising\.stop: unknown key 'rules'; did you mean",
        ),
        ({"network": 5}, r"denoising\.network: expected keys with values, found 5"),
        ({"network": {"outputs": 2}}, r"denoising\.network\.outputs: expected 1, found 2"),
        ({"iterations": 0}, r"denoising\.iterations: expected an integer >= 1, found 0"),
        ({"iterations": 1.5}, r"denoising\.iterations: expected an integer >= 1, found 1.5"),
        (
            {"learning_rate": 0},
            r"denoising\.learning_rate: expected a number > 0 and .* found 0",
        ),
        (
            {"learning_rate": "fast"},
            r"denoising\.learning_rate: expected a number > 0 .* found 'fast'",
        ),
        (
            {"mask_fraction": 0.95},
            r"denoising\.mask_fraction: expected a number from 0 to 0.9, found 0.95",
        ),
        ({"input_noise": -1}, r"denoising\.input_noise: expected a number"),
        ({"average": 1}, r"denoising\.average: expected a number >= 0 and < 1, found 1"),
        ({"total_variation": True}, r"denoising\.total_variation: expected a number"),
        ({"sigma": 0}, r"denoising\.sigma: expected a number > 0, found 0"),
        ({"precision": "fp16"}, r"denoising\.precision: expected one of .* found 'fp16'"),
        ({"noise": "poisson"}, r"denoising\.noise: expected one of"),
        ({"schedule": "step"}, r"denoising\.schedule: expected one of"),
        (
            {"checkpointing": "yes"},
            r"denoising\.checkpointing: expected true or false",
        ),
        ({"input": "scan"}, r"denoising\.mask_fraction: expected more than 0 with `input: scan`"),
        ({"stop": {"rule": "never"}}, r"denoising\.stop\.rule: expected one of"),
        (
            {"stop": {"fraction": 0}},
            r"denoising\.stop\.fraction: expected a number > 0 and <= 0.5, or auto, found 0",
        ),
        ({"stop": {"window": 1}}, r"denoising\.stop\.window: expected an integer >= 2, found 1"),
        ({"stop": {"patience": 0}}, r"denoising\.stop\.patience: expected an integer >= 1"),
    ],
)
def test_bad_settings_are_named(content, message):
    with pytest.raises(VoxmillError, match=message):
        DenoiseSettings.from_dict(content)


@pytest.mark.parametrize(
    ("content", "voxels", "share"),
    [
        ({}, 10_000_000, 0.02),
        ({}, 1_000_000, 0.02),
        ({}, 500_000, 0.04),
        ({}, 100_000, 0.2),
        ({}, 1000, 0.2),
        ({"input": "noise"}, 100_000, 0.02),  # these the network has to guess
        ({"input": "scan", "mask_fraction": 0.1}, 100_000, 0.02),
        ({"stop": {"fraction": 0.3}}, 10_000_000, 0.3),
    ],
)
def test_more_voxels_are_held_out_of_small_volumes(content, voxels, share):
    assert DenoiseSettings.from_dict(content).held_out_share(voxels) == share
