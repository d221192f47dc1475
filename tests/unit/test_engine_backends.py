"""Every backend gives the reference's numbers; the registry explains what it can't do."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from voxmill.config.networks import MSDNetSettings
from voxmill.engine import stencil
from voxmill.engine.backends import BACKENDS, choose, forward
from voxmill.networks.msdnet import MSDNet
from voxmill.runtime.errors import VoxmillError

OWN = [name for name in BACKENDS if name != "torch"]


def random_network(seed=0, bias=0.1, **settings):
    """A network with random weights and biases, whose feature maps are not all zero."""
    generator = torch.Generator().manual_seed(seed)
    network = MSDNet(MSDNetSettings(**settings), generator)
    with torch.no_grad():
        for value in [*network.biases, network.final_bias]:
            value.normal_(0.0, bias, generator=generator)
    return network


def random_volume(inputs, shape, seed=0):
    return np.random.default_rng(seed).normal(size=(inputs, *shape)).astype(np.float32)


CASES = [
    ({"depth": 5}, (17, 9, 20)),
    ({"depth": 12, "width": 2, "inputs": 2, "outputs": 3}, (13, 21, 11)),
    ({"depth": 30}, (23, 16, 33)),
    ({"depth": 7, "width": 3, "dilations": (1, 2, 4)}, (12, 12, 12)),
    ({"depth": 12, "outputs": 2}, (5, 7, 3)),  # smaller than most dilations
    ({"depth": 6, "inputs": 3}, (1, 18, 19)),  # a single plane
    ({"depth": 6}, (14, 1, 1)),
    ({"depth": 1, "dilations": (10,)}, (12, 30, 12)),
]


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize(("settings", "shape"), CASES)
def test_backend_agrees_with_reference(name, settings, shape):
    network = random_network(**settings)
    reason = BACKENDS[name].available(network, "cpu")
    if reason:
        pytest.skip(reason)
    volume = random_volume(network.settings.inputs, shape)
    expected = forward(network, volume, backend="torch")
    found = forward(network, volume, backend=name)
    assert found.shape == (network.settings.outputs, *shape)
    assert found.dtype == np.float32
    assert np.abs(expected - 0.5).max() > 0.01, "the case would not show a difference"
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "precision"),
    [(n, p) for n, b in BACKENDS.items() for p in b.precisions if p in ("bfloat16", "shared16")],
)
@pytest.mark.parametrize(("settings", "shape"), CASES[:3])
def test_16_bits_are_near_the_reference(name, precision, settings, shape):
    network = random_network(**settings)
    if reason := BACKENDS[name].available(network, "cpu"):
        pytest.skip(reason)
    volume = random_volume(network.settings.inputs, shape)
    expected = forward(network, volume, backend="torch")
    found = forward(network, volume, backend=name, precision=precision)
    assert np.abs(found - expected).max() < 0.05
    if name != "openvino":  # it keeps float32 where the CPU has no bfloat16
        assert np.abs(found - expected).max() > 0


def test_fourier_in_shared16_errs_less_than_the_reference_in_bfloat16():
    network = random_network(depth=30)
    if reason := BACKENDS["fourier"].available(network, "cpu"):
        pytest.skip(reason)
    volume = random_volume(1, (20, 20, 20))
    expected = forward(network, volume, backend="torch")
    errors = {
        name: np.abs(forward(network, volume, name, precision=precision) - expected).mean()
        for name, precision in (("fourier", "shared16"), ("torch", "bfloat16"))
    }
    assert errors["fourier"] < errors["torch"], errors


def test_auto_takes_the_first_usable_and_logs_why(caplog):
    network = random_network(depth=2)
    with caplog.at_level(logging.INFO):
        chosen = choose("auto", network, "cpu", "float32", (8, 8, 8))
    assert chosen.available(network, "cpu") is None
    assert f"backend: {chosen.name} for boxes of 8x8x8 on cpu" in caplog.text


@pytest.mark.parametrize(
    ("settings", "edge", "expected"),
    [
        ({"depth": 5}, 16, "stencil"),
        ({"depth": 10}, 16, "stencil"),
        ({"depth": 30}, 48, "fourier"),
        ({"depth": 100}, 256, "fourier"),
        ({"depth": 16, "width": 4}, 64, "fourier"),
    ],
)
def test_auto_takes_the_stencil_for_shallow_networks_and_small_boxes(settings, edge, expected):
    network = random_network(**settings)
    if reason := BACKENDS["stencil"].available(network, "cpu"):
        pytest.skip(reason)
    assert choose("auto", network, "cpu", "float32", (edge,) * 3).name == expected


@pytest.mark.parametrize(
    ("vector_bytes", "faster"), [(64, "stencil"), (32, "Fourier"), (16, "Fourier")]
)
def test_the_choice_depends_on_the_length_of_vectors(monkeypatch, vector_bytes, faster):
    library = SimpleNamespace(voxmill_vector_bytes=lambda: vector_bytes)
    monkeypatch.setattr(stencil, "load", lambda name: library)
    reason = stencil.unsuited(MSDNetSettings(depth=5), (48, 48, 48))
    assert (reason is None) == (faster == "stencil")


def test_stencil_in_threads_and_with_all_numbers_of_vectors():
    network = random_network(depth=4, width=5, dilations=(1, 3))
    if reason := BACKENDS["stencil"].available(network, "cpu"):
        pytest.skip(reason)
    for edge in (1, 3, 16, 31, 50, 67, 81):
        volume = random_volume(1, (3, 4, edge))
        expected = forward(network, volume, backend="torch")
        found = [forward(network, volume, backend="stencil", threads=n) for n in (1, 2)]
        np.testing.assert_allclose(found[0], expected, atol=2e-5)
        np.testing.assert_array_equal(*found)


def test_auto_runs_another_network_in_plain_torch(caplog):
    other = nn.Conv3d(1, 1, 1)
    with caplog.at_level(logging.INFO):
        assert choose("auto", other, "cpu", "float32", (8, 8, 8)).name == "torch"
    assert "evaluates MS-D networks, not Conv3d" in caplog.text


def test_unknown_backend():
    with pytest.raises(VoxmillError, match=r"expected auto or one of .*torch.*found 'fast'"):
        choose("fast", random_network(depth=1), "cpu", "float32", (8, 8, 8))


def test_named_backend_that_cannot_run():
    with pytest.raises(VoxmillError, match="torch-fast can't be used here: it evaluates MS-D"):
        choose("torch-fast", nn.Conv3d(1, 1, 1), "cpu", "float32", (8, 8, 8))


def test_missing_device():
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(VoxmillError, match="no CUDA device for cuda:0"):
        choose("torch", random_network(depth=1), "cuda:0", "float32", (8, 8, 8))


def test_the_error_tells_which_precisions_a_backend_has():
    found = "fourier can't be used here: its precisions are float32, shared16, found bfloat16"
    with pytest.raises(VoxmillError, match=found):
        choose("fourier", random_network(depth=1), "cpu", "bfloat16", (8, 8, 8))
    found = (
        "stencil: its precisions are float32, found float8.* fourier: .* float32, shared16, found"
    )
    with pytest.raises(VoxmillError, match=found):
        choose("auto", random_network(depth=1), "cpu", "float8", (8, 8, 8))


def test_unknown_precision():
    with pytest.raises(VoxmillError, match="no backend computes in float8"):
        choose("auto", random_network(depth=1), "cpu", "float8", (8, 8, 8))


@pytest.mark.parametrize("shape", [(8, 8, 8), (2, 8, 8, 8), (1, 0, 8, 8)])
def test_volume_of_wrong_shape(shape):
    with pytest.raises(VoxmillError, match=r"expected a volume of shape \(1, z, y, x\)"):
        forward(random_network(depth=1), np.zeros(shape, np.float32))
