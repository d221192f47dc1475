"""Padding and resampling against PyTorch's own and against numbers worked out by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from voxmill.networks.resample3d import (
    downsample_lanczos2,
    lanczos2_kernel,
    reflection_pad,
    upsample,
)

sides = st.tuples(*[st.integers(4, 7)] * 3)


def gradient(function, maps, weights):
    maps = maps.clone().requires_grad_()
    (function(maps) * weights).sum().backward()
    return maps.grad


@settings(max_examples=15, deadline=None)
@given(sides, st.integers(1, 3))
def test_reflection_pad_is_pytorchs_with_its_gradient(shape, width):
    maps = torch.randn(1, 2, *shape, dtype=torch.float64)

    def expected(m):
        return functional.pad(m, (width,) * 6, mode="reflect")

    weights = torch.randn_like(expected(maps))
    assert torch.equal(reflection_pad(maps, width), expected(maps))
    ours = gradient(lambda m: reflection_pad(m, width), maps, weights)
    torch.testing.assert_close(ours, gradient(expected, maps, weights))


def test_no_padding_is_the_map_itself():
    maps = torch.randn(1, 1, 2, 2, 2)
    assert reflection_pad(maps, 0) is maps


@settings(max_examples=15, deadline=None)
@given(
    st.tuples(*[st.integers(1, 5)] * 3), st.sampled_from(["nearest", "trilinear"]), st.booleans()
)
def test_upsampling_is_pytorchs_with_its_gradient(shape, mode, channels_last):
    maps = torch.randn(1, 2, *shape, dtype=torch.float64)
    if channels_last:
        maps = maps.contiguous(memory_format=torch.channels_last_3d)
    double = tuple(2 * side for side in shape)

    def expected(m):
        borders = {"align_corners": False} if mode == "trilinear" else {}
        return functional.interpolate(m, scale_factor=2, mode=mode, **borders)

    weights = torch.randn_like(expected(maps))
    torch.testing.assert_close(upsample(maps, mode, double), expected(maps))
    ours = gradient(lambda m: upsample(m, mode, double), maps, weights)
    torch.testing.assert_close(ours, gradient(expected, maps, weights))


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_trilinear_upsampling_keeps_the_channel_as_the_fastest_axis(monkeypatch, kind):
    layout = torch.channels_last_3d
    maps = torch.randn(1, 3, 4, 5, 2).to(kind).contiguous(memory_format=layout).requires_grad_()
    expected = functional.interpolate(
        maps.detach().float(), scale_factor=2, mode="trilinear", align_corners=False
    )
    monkeypatch.delattr(functional, "interpolate")  # slow there on GPUs
    found = upsample(maps, "trilinear", (8, 10, 4))
    assert found.dtype == kind and found.is_contiguous(memory_format=layout)
    # Rounded after each axis.
    allowed = 4 * torch.finfo(kind).eps * float(expected.abs().max())
    torch.testing.assert_close(found.float(), expected, atol=allowed, rtol=0)
    found.backward(torch.ones_like(found))
    assert maps.grad.is_contiguous(memory_format=layout)


def test_upsampling_is_cut_to_odd_sides():
    maps = torch.arange(2.0).reshape(1, 1, 1, 1, 2)
    assert upsample(maps, "nearest", (1, 2, 3)).shape == (1, 1, 1, 2, 3)
    assert upsample(maps, "trilinear", (1, 1, 4)).flatten().tolist() == [0.0, 0.25, 0.75, 1.0]


def test_lanczos2_kernel_by_hand():
    # The inner two weights lie at distances 0.25 and 0.75: sinc(0.25) sinc(0.125) = 0.87737,
    # sinc(0.75) sinc(0.375) = 0.23539; the outer two at 1.25 and 1.75, in the negative lobe.
    kernel = lanczos2_kernel()
    assert kernel.sum().item() == pytest.approx(1.0)
    assert torch.equal(kernel, kernel.flip(0))
    assert (kernel[3] / kernel[2]).item() == pytest.approx(0.87737 / 0.23539, rel=1e-3)
    assert (kernel[:2] < 0).all()


@pytest.mark.parametrize("shape", [(2, 2, 2), (5, 4, 3), (8, 7, 6)])
def test_lanczos2_halves_rounding_up_and_keeps_constants(shape):
    maps = torch.full((1, 3, *shape), 2.0)
    small = downsample_lanczos2(maps)
    assert small.shape == (1, 3, *((side + 1) // 2 for side in shape))
    torch.testing.assert_close(small, torch.full_like(small, 2.0))


def test_lanczos2_acts_on_every_axis_alike_and_keeps_a_ramp():
    ramp = torch.arange(16.0).reshape(1, 1, 1, 1, 16).expand(1, 1, 16, 16, 16)
    for axes in [(2, 3, 4), (4, 3, 2), (2, 4, 3)]:
        small = downsample_lanczos2(ramp.permute(0, 1, *axes).contiguous())
        line = small.permute(0, 1, *axes)[0, 0, 4, 4]
        # Away from the borders the output lies midway between inputs 2i and 2i + 1.
        torch.testing.assert_close(line[2:6], torch.tensor([4.5, 6.5, 8.5, 10.5]))


def test_lanczos2_suppresses_what_would_alias_better_than_the_mean():
    # 0.75 of the Nyquist frequency of the input: it has no place in half of the samples.
    wave = torch.cos(0.75 * torch.pi * torch.arange(64.0)).reshape(1, 1, 1, 1, 64)
    wave = wave.expand(1, 1, 2, 2, 64)
    mean = functional.avg_pool3d(wave, 2)[..., 4:-4].square().mean()
    assert downsample_lanczos2(wave)[..., 4:-4].square().mean() < 0.1 * mean
