"""Settings of a denoising run."""

import json

import pytest
import yaml
from torch import nn

from voxmill.config.denoising import DenoiseSettings, plain_settings
from voxmill.runtime.errors import VoxmillError
from voxmill.workflow.configuration import SCHEMA


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
        ({"iteration": 5}, "denoise setting iteration: unknown; expected some of"),
        ({"network": {"width": 5}}, "denoise setting network.width: unknown"),
        ({"stop": {"rules": "fixed"}}, "denoise setting stop.rules: unknown"),
        ({"network": 5}, "denoise setting network: expected keys, found 5"),
        ({"network": {"outputs": 2}}, "network.outputs: expected 1, found 2"),
        ({"iterations": 0}, "setting iterations: expected an integer >= 1, found 0"),
        ({"iterations": 1.5}, "setting iterations: expected an integer >= 1, found 1.5"),
        ({"learning_rate": 0}, "setting learning_rate: expected a number > 0, found 0"),
        ({"learning_rate": "fast"}, "setting learning_rate: expected a number > 0, found 'fast'"),
        ({"mask_fraction": 0.95}, "setting mask_fraction: expected a number from 0 to 0.9"),
        ({"input_noise": -1}, "setting input_noise: expected a number"),
        ({"average": 1}, "setting average: expected a number from 0 to below 1, found 1"),
        ({"total_variation": True}, "setting total_variation: expected a number"),
        ({"sigma": 0}, "setting sigma: expected a number > 0, or none, found 0"),
        ({"precision": "fp16"}, "setting precision: expected one of .* found 'fp16'"),
        ({"noise": "poisson"}, "setting noise: expected one of"),
        ({"schedule": "step"}, "setting schedule: expected one of"),
        ({"checkpointing": "yes"}, "setting checkpointing: expected one of"),
        ({"input": "scan"}, "setting mask_fraction: expected more than 0 with `input: scan`"),
        ({"stop": {"rule": "never"}}, "setting stop.rule: expected one of"),
        (
            {"stop": {"fraction": 0}},
            "setting stop.fraction: expected a number > 0 and <= 0.5, or auto",
        ),
        ({"stop": {"window": 1}}, "setting stop.window: expected an integer >= 2, found 1"),
        ({"stop": {"patience": 0}}, "setting stop.patience: expected an integer >= 1"),
    ],
)
def test_bad_settings_are_named(content, message):
    with pytest.raises(VoxmillError, match=message):
        DenoiseSettings.from_dict(content)


def test_schema_has_every_setting_with_its_default():
    schema = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))["properties"]["denoising"]
    defaults = plain_settings(DenoiseSettings())

    def compare(properties, values):
        assert set(properties) == set(values)
        for key, value in values.items():
            if isinstance(value, dict):
                compare(properties[key]["properties"], value)
            else:
                assert properties[key].get("default") == value, key

    properties = dict(schema["properties"])
    assert properties.pop("devices")["default"] == ["auto"]
    compare(properties, defaults)


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
