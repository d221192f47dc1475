"""The encoder-decoder: shapes, options, precision, and units that can be spread over devices."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from voxmill.config.skip3d import (
    ACTIVATIONS,
    DOWNSAMPLINGS,
    PADDINGS,
    UPSAMPLINGS,
    Skip3DSettings,
)
from voxmill.networks.skip3d import Conv, Norm, Skip3D
from voxmill.runtime.errors import VoxmillError

TINY = Skip3DSettings(inputs=2, down=(4, 5), up=(4, 6), skip=(3, 2))


def network(seed=0, **changes):
    chosen = dataclasses.replace(TINY, **changes)
    return Skip3D(chosen, torch.Generator().manual_seed(seed))


def test_default_has_the_parameters_of_the_original():
    default = Skip3DSettings()
    assert default.parameter_count() >= 6_000_000
    with torch.device("meta"):
        built = Skip3D(default)
    assert sum(p.numel() for p in built.parameters()) == default.parameter_count()


@pytest.mark.parametrize(
    "changes",
    [{}, {"bias": True}, {"skip": (0, 2)}, {"skip_kernel": 3, "up_kernel": 1}, {"outputs": 2}],
)
def test_parameters_are_counted_without_torch(changes):
    built = network(**changes)
    counted = dataclasses.replace(TINY, **changes).parameter_count()
    assert sum(p.numel() for p in built.parameters()) == counted


@settings(max_examples=12, deadline=None)
@given(st.tuples(*[st.integers(5, 12)] * 3), st.sampled_from(UPSAMPLINGS))
def test_output_has_the_shape_of_any_input(shape, upsampling):
    built = network(upsampling=upsampling)
    output = built(torch.randn(1, 2, *shape))
    assert output.shape == (1, 1, *shape)
    assert ((output > 0) & (output < 1)).all()


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("downsampling", DOWNSAMPLINGS)
def test_every_padding_and_downsampling_at_its_least_side(padding, downsampling):
    built = network(padding=padding, downsampling=downsampling, down_kernel=5)
    side = built.settings.least_side_vox
    output = built(torch.randn(1, 2, side, side, side + 2))
    output.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in built.parameters())


def test_reflection_needs_a_longer_least_side():
    assert dataclasses.replace(TINY, padding="zero").least_side_vox == 5
    assert dataclasses.replace(TINY, padding="reflection", down_kernel=5).least_side_vox == 9


@pytest.mark.parametrize("activation", [*ACTIVATIONS, nn.Tanh])
def test_activations_give_different_networks_with_gradients(activation):
    built = network(activation=activation)
    maps = torch.randn(1, 2, 6, 6, 6, generator=torch.Generator().manual_seed(1))
    output = built(maps)
    output.mean().backward()
    assert all(p.grad is not None for p in built.parameters())
    if activation != "leaky_relu":
        assert not torch.allclose(output, network()(maps))


def test_without_sigmoid_outputs_are_unbounded_logits_of_the_same_network():
    maps = torch.randn(1, 2, 6, 6, 6)
    logits = network(sigmoid=False)(maps)
    torch.testing.assert_close(torch.sigmoid(logits), network()(maps))


def test_same_seed_same_weights():
    first, second, other = network(seed=1), network(seed=1), network(seed=2)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name])
    assert not torch.equal(first.units["up0"][0].weight, other.units["up0"][0].weight)


def test_skip_connections_carry_detail_past_the_encoder():
    built = network()
    for name in ("down0", "down1", "skip1"):
        for parameter in built.units[name].parameters():
            nn.init.zeros_(parameter)
    first, second = torch.randn(2, 1, 2, 6, 6, 6)
    assert not torch.allclose(built(first), built(second))
    for parameter in built.units["skip0"].parameters():
        nn.init.zeros_(parameter)
    assert torch.allclose(built(first), built(second))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_pass_keeps_float32_weights_gradients_and_output(dtype):
    built = network()
    maps = torch.rand(1, 2, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    reference = built(maps)
    seen = []
    built.units["up0"].register_forward_hook(lambda m, i, out: seen.append(out.dtype))
    output = built(maps.to(dtype))
    assert seen == [dtype]
    assert output.dtype == torch.float32
    output.square().mean().backward()
    for parameter in built.parameters():
        assert parameter.dtype == parameter.grad.dtype == torch.float32
    # Bfloat16 has 8 bits of mantissa; the norms keep the error from growing with depth.
    assert (output - reference).abs().max() < (0.1 if dtype == torch.bfloat16 else 0.02)


@pytest.mark.parametrize(
    ("padding", "side"),
    [*(("zero", n) for n in range(1, 7)), *(("reflection", n) for n in range(3, 7))],
)
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_bfloat16_gradients_of_small_maps_are_of_the_maps_alone(padding, kernel, stride, side):
    generator = torch.Generator().manual_seed(7)
    conv = Conv(16, 16, kernel, Skip3DSettings(padding=padding), generator, stride=stride)
    maps = torch.randn(1, 16, side, 7, 7, generator=generator)
    pull = torch.randn(conv(maps).shape, generator=generator)

    def gradient(dtype):
        # What kernels may misread: freed memory full of NaN.
        freed = [torch.full((2**n,), float("nan")) for n in range(4, 18)]
        del freed
        conv.weight.grad = None
        wanted = maps.to(dtype).contiguous(memory_format=torch.channels_last_3d)
        conv(wanted).backward(pull.to(dtype))
        return conv.weight.grad

    expected = gradient(torch.float32)
    for _ in range(3):
        found = gradient(torch.bfloat16)
        assert (found - expected).abs().max() < 0.02 * expected.abs().max()


def test_norm_of_large_half_precision_maps_is_finite():
    # The sum of squares of these maps is 1e9: it overflows in float16, whose maximum is 65504.
    maps = torch.full((1, 1, 4, 4, 4), 4000.0)
    maps[..., ::2] = -4000.0
    out = Norm(1)(maps.half())
    torch.testing.assert_close(out.float(), maps / 4000.0)


def test_checkpointing_changes_no_gradient():
    maps = torch.randn(1, 2, 7, 6, 5)
    gradients = []
    for checkpointed in (False, True):
        built = network()
        built.checkpointed = checkpointed
        built(maps).square().mean().backward()
        gradients.append([p.grad for p in built.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


def test_gradients_against_finite_differences():
    built = network(padding="reflection", activation="swish").double()
    maps = torch.randn(1, 2, 5, 6, 5, dtype=torch.float64)
    weight = built.units["up1"][0].weight
    loss = built(maps).double().square().sum()
    loss.backward()
    # The output is float32 by design, so the step must be large against its rounding.
    step = 1e-2
    with torch.no_grad():
        weight[0, 0, 1, 1, 1] += step
        above = built(maps).double().square().sum()
        weight[0, 0, 1, 1, 1] -= 2 * step
        below = built(maps).double().square().sum()
    slope = ((above - below) / (2 * step)).item()
    assert slope == pytest.approx(weight.grad[0, 0, 1, 1, 1].item(), rel=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"down": (4,)}, "one number per scale in each, found 1, 2 and 2"),
        ({"down": (4, 0)}, r"skip3d\.down: expected one or more integers >= 1, found \(4, 0\)"),
        ({"skip": (4, -1)}, r"skip3d\.skip: expected one or more integers >= 0, found \(4, -1\)"),
        ({"up": 4}, r"skip3d\.up: expected one or more integers >= 1, found 4"),
        ({"inputs": True}, r"skip3d\.inputs: expected an integer >= 1, found True"),
        ({"up_kernel": 4}, r"skip3d\.up_kernel: expected an odd integer >= 1, found 4"),
        ({"activation": "relu"}, r"skip3d\.activation: expected one of .* found 'relu'"),
        ({"padding": "same"}, r"skip3d\.padding: expected one of .* found 'same'"),
        ({"downsampling": "fft"}, r"skip3d\.downsampling: expected one of .* found 'fft'"),
        ({"upsampling": "cubic"}, r"skip3d\.upsampling: expected one of .* found 'cubic'"),
    ],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(VoxmillError, match=message):
        dataclasses.replace(TINY, **changes)
