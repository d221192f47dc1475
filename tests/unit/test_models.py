"""Models on disk: a card that fits its weights, errors that name the file."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from voxmill.config.networks import MSDNetSettings
from voxmill.engine.backends import forward
from voxmill.networks import NETWORKS, build, check_settings, models
from voxmill.networks.stored import StoredNetwork, module_of
from voxmill.runtime.errors import VoxmillError

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = MSDNetSettings(depth=3, width=2, dilations=(1, 2))


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "m.safetensors"
    card = models.ModelCard("m", "msdnet", dataclasses.asdict(SETTINGS), threshold=0.4)
    models.save(path, build("msdnet", SETTINGS, seed=3), card)
    return path


def edit_card(weights, **changes):
    path = models.card_path(weights)
    card = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in card.items() if v != "drop"}))


def test_round_trip(weights):
    card, network = models.load(weights)
    assert (card.name, card.threshold, card.outputs) == ("m", 0.4, ("centroid",))
    expected = build("msdnet", SETTINGS, seed=3).state_dict()
    assert all(torch.equal(network.state_dict()[key], expected[key]) for key in expected)
    assert not network.training


def test_a_stored_network_is_the_module_with_its_weights(weights):
    _, stored = models.load_stored(weights)
    network = build("msdnet", SETTINGS, seed=3).eval()
    again = StoredNetwork.of_msdnet(network)
    assert stored.settings == again.settings == SETTINGS
    for key, array in stored.arrays.items():
        np.testing.assert_array_equal(array, again.arrays[key])
    assert module_of(network) is network
    volume = np.random.default_rng(0).normal(size=(1, 5, 6, 7)).astype(np.float32)
    for name in ("torch", "auto"):
        np.testing.assert_array_equal(forward(stored, volume, name), forward(network, volume, name))


PREDICT_WITHOUT_TORCH = """
import sys
import numpy as np
from voxmill.networks import models
from voxmill.prediction.box import PredictionSettings, on_claimed_device, predict
from voxmill.engine import fourier
from voxmill.prediction import measure_halo as halo
from voxmill.prediction import predictor as _
from voxmill.evaluation import measure_seams as seams
_, network = models.load_stored(sys.argv[1])
with on_claimed_device(PredictionSettings(), 0, "out.tif") as settings:
    assert predict(network, np.ones((4, 5, 6), np.float32), settings, 1).shape == (1, 4, 5, 6)
print("torch" in sys.modules, fourier.available(network, "cpu"))
"""


def test_a_prediction_by_the_native_engine_imports_no_torch(weights):
    """Importing torch would take longer than predicting a small tile."""
    command = [sys.executable, "-c", PREDICT_WITHOUT_TORCH, str(weights)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    imported, reason = done.stdout.split(maxsplit=1)
    if reason.strip() != "None":
        pytest.skip(reason)
    assert imported == "False"


def test_tensor_shapes_are_those_of_the_network(weights):
    network = build("msdnet", SETTINGS)
    found = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert SETTINGS.tensor_shapes() == found == models.tensor_shapes(weights)


def test_depth_100_has_the_size_of_the_original():
    count = sum(p.numel() for p in build("msdnet", MSDNetSettings()).parameters())
    assert count == 27 * 5050 + 100 + 101 + 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": 1}, "unknown key 'colour'"),
        ({"threshold": "drop"}, "missing key 'threshold'"),
        ({"network": "unet"}, r"expected one of .*msdnet.*, found 'unet'"),
        ({"settings": {"depth": 0}}, r"m\.json: msdnet\.depth: expected an integer >= 1, found 0"),
        ({"settings": {"dept": 3}}, r"m\.json: msdnet: unknown key 'dept'; did you mean 'depth'"),
        ({"settings": {"dilations": []}}, "dilations: expected one or more integers >= 1"),
        ({"settings": {"depth": 4, "width": 2, "dilations": [1, 2]}}, "weights of another network"),
        ({"weights_sha256": "0" * 64}, "take both from the same model"),
    ],
)
def test_a_wrong_card_is_refused(weights, changes, message):
    edit_card(weights, **changes)
    with pytest.raises(VoxmillError, match=message):
        models.load(weights)


def test_a_missing_card_is_named(weights):
    models.card_path(weights).unlink()
    with pytest.raises(VoxmillError, match=r"m\.json: this model card does not exist"):
        models.read_card(weights)


@pytest.mark.parametrize(
    "content", [b"", b"short", b"\x80\x04pickle-like bytes", b"\x02" + b"\0" * 7 + b"[]"]
)
def test_unreadable_weights_are_named(weights, content):
    weights.write_bytes(content)
    with pytest.raises(VoxmillError, match=r"m\.safetensors: expected weights as safetensors"):
        models.read_card(weights)


def test_truncated_weights_are_named(weights):
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(VoxmillError, match="where the header announces"):
        models.read_card(weights)


def test_missing_weights_are_named(weights):
    weights.unlink()
    with pytest.raises(VoxmillError, match="this weights file does not exist"):
        models.read_card(weights)


@pytest.mark.parametrize("which", ["weights", "card"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_in_place_of_a_model_is_refused_and_not_waited_for(weights, which, kind):
    path = weights if which == "weights" else models.card_path(weights)
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    for read in (models.read_card, models.load):
        with pytest.raises(VoxmillError, match=rf"{path.name}: expected .*, found no plain file"):
            read(weights)


def test_every_registered_network_can_be_built():
    for name, (settings, _, _) in NETWORKS.items():
        if name == "exported":  # loaded whole
            continue
        assert check_settings(name, {}) == settings()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "models").glob("*.safetensors")), ids=lambda p: p.stem
)
def test_a_shipped_card_names_source_and_licence_of_its_training_data(path):
    training = models.read_card(path).training
    assert all(len(training[key]) > 10 for key in ("source", "licence"))
