"""The reference network: both paths agree, the boundary is zero, the receptive field is right."""

import numpy as np
import pytest
import torch

from voxmill.config.networks import MSDNetSettings
from voxmill.networks import build


def naive(network, volume):
    """The network written as its definition: one sum per voxel, layer and feature map."""
    settings = network.settings
    maps = [np.asarray(m) for m in volume]
    shape = maps[0].shape
    for layer in range(settings.depth):
        d = settings.dilation(layer)
        padded = [np.pad(m, d) for m in maps]
        weights = network.weights[layer].detach().numpy()
        for out in range(settings.width):
            total = np.full(shape, network.biases[layer][out].item())
            for index, m in enumerate(padded):
                for k in np.ndindex(3, 3, 3):
                    part = tuple(slice(a * d, a * d + n) for a, n in zip(k, shape, strict=True))
                    total += weights[(out, index, *k)] * m[part]
            maps.append(np.maximum(total, 0))
    final = network.final_weight.detach().numpy()
    return np.einsum("om,mzyx->ozyx", final, np.stack(maps)) + network.final_bias[0].item()


@pytest.mark.parametrize(("inputs", "outputs", "width"), [(1, 1, 1), (2, 1, 2)])
def test_the_network_is_its_definition(inputs, outputs, width):
    settings = MSDNetSettings(3, width, (1, 2), inputs, outputs)
    network = build("msdnet", settings, seed=5)
    volume = np.random.default_rng(0).normal(size=(inputs, 4, 5, 6)).astype(np.float32)
    with torch.no_grad():
        found = network(torch.from_numpy(volume)[None])[0].numpy()
    np.testing.assert_allclose(found, naive(network, volume), atol=1e-5)


def test_inference_equals_the_path_with_gradients():
    network = build("msdnet", MSDNetSettings(7, 2, (1, 2, 3)), seed=1)
    volume = torch.randn(2, 1, 6, 7, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        inference = network(volume)
    torch.testing.assert_close(inference, network(volume), atol=1e-6, rtol=1e-6)


def test_nothing_beyond_the_receptive_radius_matters():
    settings = MSDNetSettings(3, 1, (1, 2))
    assert settings.receptive_radius_vox == 4
    network = build("msdnet", settings, seed=2).double()
    volume = torch.randn(1, 1, 1, 1, 21, generator=torch.Generator().manual_seed(0)).double()
    changed = volume.clone()
    changed[..., 0] += 1
    with torch.no_grad():
        difference = (network(volume) - network(changed))[0, 0, 0, 0].abs()
    assert (difference[5:] == 0).all()
    assert (difference[:5] > 0).any()
