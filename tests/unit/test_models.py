"""Models on disk: a card that fits its weights, errors that name the file."""

import dataclasses
import json

import pytest
import torch

from voxmill import models
from voxmill.errors import VoxmillError
from voxmill.networks import NETWORKS, build, check_settings
from voxmill.networks.settings import MSDNetSettings

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
        ({"settings": {"depth": 0}}, "depth: expected an integer >= 1, found 0"),
        ({"settings": {"dept": 3}}, "msdnet setting dept: unknown"),
        ({"settings": {"dilations": []}}, "dilations: expected integers >= 1"),
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


def test_every_registered_network_can_be_built():
    for name, (settings, _, _) in NETWORKS.items():
        if name == "exported":  # loaded whole
            continue
        assert check_settings(name, {}) == settings()
