"""Padding, upsampling and downsampling of feature maps, with gradients that repeat bit for bit.

PyTorch's own backward passes of reflection padding and trilinear upsampling add with atomics on
CUDA, so that two runs differ in the last bits, and a resumed fit would differ from an uninterrupted
one. Here the forward passes are PyTorch's, and the backward passes are sums of slices. The forward
pass of trilinear upsampling is one of slices, too, for feature maps with the channel as the fastest
axis: PyTorch's CUDA kernel goes through the channels of a voxel one after the other, so that
neighbouring threads read and write far apart. Slices keep the order of the axes and read in it.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

AXES = (-3, -2, -1)


class _ReflectionPad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, width: int) -> Tensor:
        ctx.width = width
        return functional.pad(maps, (width,) * 6, mode="reflect")

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        width = ctx.width
        for axis in AXES:
            length = gradient.shape[axis] - 2 * width
            inner = gradient.narrow(axis, width, length).clone()
            # Voxel i of the left margin mirrors voxel width - i: add the margin in reverse order.
            inner.narrow(axis, 1, width).add_(gradient.narrow(axis, 0, width).flip(axis))
            right = gradient.narrow(axis, width + length, width).flip(axis)
            inner.narrow(axis, length - 1 - width, width).add_(right)
            gradient = inner
        return gradient, None


class _UpsampleTrilinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        layout = torch.channels_last_3d
        if maps.is_contiguous(memory_format=layout) and not maps.is_contiguous():
            for axis in AXES:
                maps = _doubled(maps, axis)
            return maps
        return functional.interpolate(maps, scale_factor=2, mode="trilinear", align_corners=False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        for axis in AXES:
            length = gradient.shape[axis] // 2
            pairs = gradient.unflatten(axis, (length, 2))
            even, odd = pairs.select(axis, 0), pairs.select(axis, 1)
            inner = 0.75 * (even + odd)
            # Output 2i is 0.75 of input i and 0.25 of i - 1; output 2i + 1 has 0.25 of i + 1; at
            # the borders the missing neighbour is the voxel itself.
            inner.narrow(axis, 0, length - 1).add_(even.narrow(axis, 1, length - 1), alpha=0.25)
            inner.narrow(axis, 1, length - 1).add_(odd.narrow(axis, 0, length - 1), alpha=0.25)
            inner.narrow(axis, 0, 1).add_(even.narrow(axis, 0, 1), alpha=0.25)
            inner.narrow(axis, length - 1, 1).add_(odd.narrow(axis, length - 1, 1), alpha=0.25)
            gradient = inner
        return gradient


def _doubled(maps: Tensor, axis: int) -> Tensor:
    """Interpolate one axis to twice its length, for maps whose channel is the fastest axis."""
    length = maps.shape[axis]
    shape = list(maps.shape)
    shape[axis] *= 2
    doubled = torch.empty(
        shape, dtype=maps.dtype, device=maps.device, memory_format=torch.channels_last_3d
    )
    even, odd = doubled.unflatten(axis, (length, 2)).unbind(axis)
    left, right = maps.narrow(axis, 0, length - 1), maps.narrow(axis, 1, length - 1)
    # Output 2i is 0.75 of input i and 0.25 of i - 1; output 2i + 1 has 0.25 of i + 1.
    torch.lerp(right, left, 0.25, out=even.narrow(axis, 1, length - 1))
    torch.lerp(left, right, 0.25, out=odd.narrow(axis, 0, length - 1))
    # At the borders the missing neighbour is the voxel itself.
    even.narrow(axis, 0, 1).copy_(maps.narrow(axis, 0, 1))
    odd.narrow(axis, length - 1, 1).copy_(maps.narrow(axis, length - 1, 1))
    return doubled


def reflection_pad(maps: Tensor, width: int) -> Tensor:
    """Pad feature maps with their mirror image; the border voxels themselves are not repeated.

    Parameters
    ----------
    maps : (batch, channels, z, y, x) tensor
        Every side longer than `width`.
    width : int
        Voxels added on each of the six sides.
    """
    if not width:
        return maps
    padded: Tensor = _ReflectionPad.apply(maps, width)
    return padded


def upsample(maps: Tensor, mode: str, shape: tuple[int, int, int]) -> Tensor:
    """Double the edges of feature maps and crop them to `shape`.

    Parameters
    ----------
    maps : (batch, channels, z, y, x) tensor
    mode : str
        "nearest" or "trilinear" (borders as `align_corners=False`).
    shape : (3,) tuple of int
        Each edge twice that of `maps`, or one less where the edge that was halved was odd.
    """
    if mode == "trilinear":
        doubled: Tensor = _UpsampleTrilinear.apply(maps)
    else:
        doubled = functional.interpolate(maps, scale_factor=2, mode="nearest")
    return doubled[..., : shape[0], : shape[1], : shape[2]]


def lanczos2_kernel() -> Tensor:
    """The one-dimensional kernel that halves a signal: 8 weights with the sum 1.

    A sinc of half the bandwidth, windowed by the central lobe of a sinc twice as wide (Lanczos'
    window with two lobes), sampled at half voxels: an output lies midway between two inputs, as the
    mean of a pair does.

    Returns
    -------
    (8,) float32 tensor
    """
    distances = [(tap - 3.5) / 2 for tap in range(8)]
    weights = [_sinc(distance) * _sinc(distance / 2) for distance in distances]
    return torch.tensor([weight / sum(weights) for weight in weights])


def downsample_lanczos2(maps: Tensor) -> Tensor:
    """Halve feature maps with Lanczos' kernel along each axis; the outermost voxels are repeated.

    Parameters
    ----------
    maps : (batch, channels, z, y, x) tensor

    Returns
    -------
    (batch, channels, ceil(z / 2), ceil(y / 2), ceil(x / 2)) tensor
    """
    channels = maps.shape[1]
    kernel = lanczos2_kernel().to(device=maps.device, dtype=maps.dtype)
    for axis in range(3):
        size = maps.shape[2 + axis]
        first, last = maps.narrow(2 + axis, 0, 1), maps.narrow(2 + axis, size - 1, 1)
        # Concatenation, not replication padding, whose gradient is not repeatable on CUDA.
        maps = torch.cat([first] * 3 + [maps] + [last] * (3 + size % 2), dim=2 + axis)
        sides = [8 if other == axis else 1 for other in range(3)]
        strides = [2 if other == axis else 1 for other in range(3)]
        weight = kernel.reshape(1, 1, *sides).expand(channels, 1, *sides)
        maps = functional.conv3d(maps, weight, stride=strides, groups=channels)
    return maps


def _sinc(x: float) -> float:
    return 1.0 if x == 0 else math.sin(math.pi * x) / (math.pi * x)
