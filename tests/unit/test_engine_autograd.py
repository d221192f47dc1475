"""Gradients through the native engine are those of the plain network."""

import pytest
import torch
from torch import nn

from voxmill.config.networks import MSDNetSettings
from voxmill.engine import fourier
from voxmill.engine.autograd import fourier_forward, release
from voxmill.networks.msdnet import MSDNet
from voxmill.runtime.errors import VoxmillError

CASES = [
    ({"depth": 4, "dilations": (1, 2, 3)}, (2, 6, 7, 5)),
    ({"depth": 5, "width": 2, "inputs": 2, "outputs": 3, "dilations": (1, 4)}, (1, 9, 3, 17)),
    ({"depth": 22}, (1, 12, 13, 20)),
    ({"depth": 3, "width": 3}, (2, 1, 5, 9)),
]


def make(settings, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    network = MSDNet(MSDNetSettings(**settings), generator).to(dtype)
    reason = fourier.available(network, "cpu")
    if reason:
        pytest.skip(reason)
    with torch.no_grad():
        for bias in [*network.biases, network.final_bias]:
            bias.normal_(0.0, 0.1, generator=generator)
    return network


def make_batch(network, shape, dtype=torch.float64, seed=1):
    batch, *box = shape
    generator = torch.Generator().manual_seed(seed)
    volume = torch.randn(batch, network.settings.inputs, *box, generator=generator, dtype=dtype)
    return volume.requires_grad_()


def gradients(network, batch, evaluate):
    """Logits and the gradients of a fixed random combination of them."""
    network.zero_grad()
    batch.grad = None
    logits = evaluate(batch)
    generator = torch.Generator().manual_seed(2)
    logits.backward(torch.randn(logits.shape, generator=generator, dtype=logits.dtype))
    tensors = [t for t in (batch, *network.parameters()) if t.requires_grad]
    return logits, [t.grad.clone() for t in tensors]


@pytest.mark.parametrize(("settings", "shape"), CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-5)])
@pytest.mark.parametrize("of_batch", [True, False])
def test_gradients_are_those_of_the_plain_network(settings, shape, dtype, tolerance, of_batch):
    network = make(settings, dtype)
    batch = make_batch(network, shape, dtype).requires_grad_(of_batch)
    expected, expected_gradients = gradients(network, batch, network)
    found, found_gradients = gradients(network, batch, lambda b: fourier_forward(network, b))
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)
    for one, other in zip(found_gradients, expected_gradients, strict=True):
        scale = max(1.0, float(other.abs().max()))
        torch.testing.assert_close(one / scale, other / scale, atol=tolerance, rtol=0)


def test_gradcheck():
    network = make({"depth": 2, "dilations": (1, 2), "outputs": 2})
    batch = make_batch(network, (1, 3, 3, 4))
    names, values = zip(*network.named_parameters(), strict=True)

    def evaluate(volume, *tensors):
        given = dict(zip(names, tensors, strict=True))
        return fourier_forward(_Holder(network.settings, given), volume)

    assert torch.autograd.gradcheck(evaluate, (batch, *values), eps=1e-6, atol=1e-6)


class _Holder(MSDNet):
    """An MSDNet whose tensors are any tensors, for gradcheck."""

    def __init__(self, settings, tensors):
        nn.Module.__init__(self)
        depth = range(settings.depth)
        self.__dict__.update(
            settings=settings,
            weights=[tensors[f"weights.{i}"] for i in depth],
            biases=[tensors[f"biases.{i}"] for i in depth],
            final_weight=tensors["final_weight"],
            final_bias=tensors["final_bias"],
        )


def test_threads_do_not_change_a_bit():
    network = make({"depth": 12, "width": 2}, torch.float32)
    batch = make_batch(network, (1, 11, 14, 13), torch.float32)
    one, one_gradients = gradients(network, batch, lambda b: fourier_forward(network, b, 1))
    two, two_gradients = gradients(network, batch, lambda b: fourier_forward(network, b, 2))
    assert torch.equal(one, two)
    assert all(torch.equal(a, b) for a, b in zip(one_gradients, two_gradients, strict=True))


def test_two_graphs_alive_at_once():
    network = make({"depth": 4})
    first, second = make_batch(network, (1, 8, 8, 8)), make_batch(network, (1, 8, 8, 8), seed=5)
    a, b = fourier_forward(network, first), fourier_forward(network, second)
    a.sum().backward()
    b.sum().backward()
    expected = torch.autograd.grad(network(second).sum(), second)[0]
    torch.testing.assert_close(second.grad, expected)


def test_without_gradients_and_after_release():
    network = make({"depth": 4})
    batch = make_batch(network, (1, 8, 8, 8))
    with torch.no_grad():
        before = fourier_forward(network, batch)
        release()
        assert torch.equal(fourier_forward(network, batch), before)
    assert not before.requires_grad


def test_adam_reaches_the_same_weights():
    networks = [make({"depth": 5}, torch.float32) for _ in range(2)]
    for network, evaluate in zip(networks, (None, fourier_forward), strict=True):
        optimizer = torch.optim.Adam(network.parameters(), 1e-3)
        for step in range(3):
            batch = make_batch(network, (2, 9, 9, 9), torch.float32, seed=step).detach()
            logits = evaluate(network, batch) if evaluate else network(batch)
            optimizer.zero_grad()
            logits.square().mean().backward()
            optimizer.step()
    for one, other in zip(*(n.parameters() for n in networks), strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=0)


def test_batch_of_wrong_type():
    network = make({"depth": 1})
    with pytest.raises(VoxmillError, match=r"expected a batch \(batch, 1, z, y, x\) of torch.flo"):
        fourier_forward(network, torch.zeros(1, 1, 4, 4, 4))


def test_another_network():
    with pytest.raises(VoxmillError, match="it evaluates MS-D networks, not Conv3d"):
        fourier_forward(nn.Conv3d(1, 1, 1), torch.zeros(1, 1, 4, 4, 4))
