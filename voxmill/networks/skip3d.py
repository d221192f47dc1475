"""The encoder-decoder with skip connections of the Deep Image Prior, in three dimensions.

D. Ulyanov, A. Vedaldi, V. Lempitsky, "Deep Image Prior", 2017, https://arxiv.org/abs/1711.10925
(their network for denoising; every 2D operation in its 3D form).

    x0 -> down0 -> x1 -> down1 -> ... -> xN          down: two convolutions, the first one halves
    |              |                     |           skip: a convolution with few channels
    skip0          skip1                 |           merge: upsample, join with the skip, norm
    |              |                     |           up: a convolution; mix: a 1 x 1 x 1 one
    y <- head <- mix0, up0, merge0 <- ... <- mixN-1, upN-1, mergeN-1

Weights are always float32: a convolution casts them to the type of its input, and autograd casts
their gradient back. The type of the volume therefore sets the precision of the whole pass, on any
device, and the float32 weights are the master copy of mixed precision.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from voxmill.config.skip3d import Skip3DSettings
from voxmill.networks.resample3d import downsample_lanczos2, reflection_pad, upsample


class Conv(nn.Module):
    """A convolution that keeps the size (at stride 1) or halves it, rounding up (at stride 2)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        settings: Skip3DSettings,
        generator: torch.Generator | None,
        stride: int = 1,
        bias: bool | None = None,
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.radius = kernel, stride, kernel // 2
        self.reflects = settings.padding != "zero"
        # PyTorch's own initial weights: uniform within 1 / sqrt(fan-in).
        bound = 1.0 / math.sqrt(inputs * kernel**3)
        shape = (outputs, inputs, kernel, kernel, kernel)
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))
        self.bias: nn.Parameter | None = None
        if settings.bias if bias is None else bias:
            self.bias = nn.Parameter(
                torch.empty(outputs).uniform_(-bound, bound, generator=generator)
            )

    def forward(self, maps: Tensor) -> Tensor:
        """Convolve feature maps (batch, channels, z, y, x)."""
        kind = maps.dtype
        if self._misread(maps):
            maps = maps.float()
        weight = self.weight.to(maps.dtype)
        bias = None if self.bias is None else self.bias.to(maps.dtype)
        padding = self.radius
        if self.reflects and self.radius:
            maps, padding = reflection_pad(maps, self.radius), 0
        return functional.conv3d(maps, weight, bias, self.stride, padding).to(kind)

    def _misread(self, maps: Tensor) -> bool:
        """Whether PyTorch may read memory outside of the feature maps for the weights' gradient.

        Its bfloat16 kernels for CPUs do (oneDNN; seen with PyTorch 2.13 on AVX-512) where an edge
        is not longer than the kernel; the gradient is then random, NaN, or the process crashes.
        """
        small = self.kernel > 1 and min(maps.shape[2:]) <= self.kernel
        return small and maps.dtype == torch.bfloat16 and maps.device.type == "cpu"


class Norm(nn.Module):
    """Batch norm with the volume's own statistics, in float32 for feature maps of any type."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, maps: Tensor) -> Tensor:
        """Normalise feature maps (batch, channels, z, y, x)."""
        # With float32 weights PyTorch reduces half-precision feature maps in float32, uncopied.
        normed: Tensor = functional.batch_norm(
            maps, None, None, self.weight, self.bias, training=True
        )
        return normed


class Activation(nn.Module):
    """The settings' non-linearity; overwrites its input, which no norm needs for its gradient."""

    def __init__(self, settings: Skip3DSettings) -> None:
        super().__init__()
        self.kind = settings.activation
        self.module: nn.Module | None = None
        if callable(settings.activation):
            self.module = settings.activation()

    def forward(self, maps: Tensor) -> Tensor:
        """Apply the activation to feature maps; some activations overwrite them."""
        if self.module is not None:
            activated: Tensor = self.module(maps)
            return activated
        if self.kind == "leaky_relu":
            return functional.leaky_relu_(maps, 0.2)
        if self.kind == "elu":
            return functional.elu_(maps)
        return functional.silu(maps) if self.kind == "swish" else maps


class Block(nn.Sequential):
    """Convolution, norm, activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        settings: Skip3DSettings,
        generator: torch.Generator | None,
        halve: str | None = None,
    ) -> None:
        strided = halve == "stride"
        layers: list[nn.Module] = [
            Conv(inputs, outputs, kernel, settings, generator, stride=2 if strided else 1)
        ]
        if halve and not strided:
            layers.append(Halve(halve))
        super().__init__(*layers, Norm(outputs), Activation(settings))


class Halve(nn.Module):
    """Halves the edges of feature maps; odd edges are rounded up."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, maps: Tensor) -> Tensor:
        """Halve feature maps (batch, channels, z, y, x)."""
        if self.kind == "lanczos2":
            return downsample_lanczos2(maps)
        pool = functional.avg_pool3d if self.kind == "average" else functional.max_pool3d
        halved: Tensor = pool(maps, kernel_size=2, stride=2, ceil_mode=True)
        return halved


class Merge(nn.Module):
    """Doubles the coarser feature maps, joins the skip connection to them, and normalises both."""

    def __init__(self, channels: int, settings: Skip3DSettings) -> None:
        super().__init__()
        self.norm, self.mode = Norm(channels), settings.upsampling

    def forward(self, below: Tensor, skip: Tensor | None, shape: tuple[int, int, int]) -> Tensor:
        """Feature maps of `shape` from coarser ones and, where there is one, a skip connection."""
        maps = upsample(below, self.mode, shape)
        merged: Tensor = self.norm(maps if skip is None else torch.cat((skip, maps), dim=1))
        return merged


class Skip3D(nn.Module):
    """The network as a chain of units, each of which may be on its own device.

    Parameters
    ----------
    settings : Skip3DSettings
    generator : torch.Generator, optional
        Source of the initial weights (on the CPU).

    Attributes
    ----------
    units : ModuleDict
        In the order in which they run: skip0, down0, skip1, ..., merge1, up1, mix1, merge0, ...,
        head. A network on two devices has the first units on one and the rest on the other.
    devices : dict of str to torch.device
        Device of each unit, set by `place`; a unit without an entry computes where its input is.
    checkpointed : bool
        Recompute the feature maps inside a unit in the backward pass instead of keeping them.
    """

    def __init__(self, settings: Skip3DSettings, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.settings = settings
        self.units = nn.ModuleDict()
        self.devices: dict[str, torch.device] = {}
        self.checkpointed = False
        self.layout = torch.preserve_format
        for name, unit in _units(settings, generator):
            self.units[name] = unit

    def place(self, devices: dict[str, torch.device], channels_last: bool = False) -> "Skip3D":
        """Move every unit to its device; returns the network.

        Parameters
        ----------
        devices : dict of str to torch.device
            A device for every unit.
        channels_last : bool
            Store kernels with the channel as the fastest axis, for volumes that are stored so.
        """
        self.layout = torch.channels_last_3d if channels_last else torch.preserve_format
        for name, unit in self.units.items():
            for module in unit.modules():
                # New parameters: Module.to fails on the fake tensors of a memory plan.
                for key, weight in list(module.named_parameters(recurse=False)):
                    kind = self.layout if weight.dim() == 5 else torch.preserve_format
                    moved = weight.detach().to(devices[name], memory_format=kind)
                    setattr(module, key, nn.Parameter(moved))
        self.devices = dict(devices)
        return self

    def forward(self, volume: Tensor) -> Tensor:
        """The denoised volume.

        Parameters
        ----------
        volume : (batch, inputs, z, y, x) float tensor
            Its floating type is that of the whole pass; no edge shorter than
            `settings.least_side_vox`.

        Returns
        -------
        (batch, outputs, z, y, x) float32 tensor
            On the device of the last unit; within (0, 1) where the settings have a sigmoid.
        """
        skips: list[Tensor | None] = []
        shapes: list[tuple[int, ...]] = []
        maps = volume
        for scale in range(self.settings.scales):
            shapes.append(tuple(maps.shape[2:]))
            skip = f"skip{scale}"
            skips.append(self._run(skip, maps) if skip in self.units else None)
            maps = self._run(f"down{scale}", maps)
        for scale in reversed(range(self.settings.scales)):
            maps = self._run(f"merge{scale}", maps, skips.pop(), shapes.pop())
            maps = self._run(f"up{scale}", maps)
            maps = self._run(f"mix{scale}", maps)
        # The output, the loss and the averages of outputs are float32 in any precision.
        output = self._run("head", maps).float()
        return torch.sigmoid(output) if self.settings.sigmoid else output

    def _run(self, name: str, *inputs: Any) -> Tensor:
        unit, device = self.units[name], self.devices.get(name)
        if device is not None:
            inputs = tuple(t.to(device) if isinstance(t, Tensor) else t for t in inputs)
        maps: Tensor
        if self.checkpointed and torch.is_grad_enabled():
            maps = checkpoint(unit, *inputs, use_reentrant=False, preserve_rng_state=False)
        else:
            maps = unit(*inputs)
        if self.layout is torch.channels_last_3d:
            # One channel fits both layouts, and its convolution may have chosen the other one.
            maps = maps.contiguous(memory_format=self.layout)
        return maps


def _units(
    settings: Skip3DSettings, generator: torch.Generator | None
) -> Iterator[tuple[str, nn.Module]]:
    """Names and modules in the order in which they run."""
    seen = settings.inputs
    for scale, (down, skip) in enumerate(zip(settings.down, settings.skip, strict=True)):
        if skip:
            yield f"skip{scale}", Block(seen, skip, settings.skip_kernel, settings, generator)
        yield (
            f"down{scale}",
            nn.Sequential(
                Block(
                    seen,
                    down,
                    settings.down_kernel,
                    settings,
                    generator,
                    halve=settings.downsampling,
                ),
                Block(down, down, settings.down_kernel, settings, generator),
            ),
        )
        seen = down
    for scale in reversed(range(settings.scales)):
        joined, up = seen + settings.skip[scale], settings.up[scale]
        yield f"merge{scale}", Merge(joined, settings)
        yield f"up{scale}", Block(joined, up, settings.up_kernel, settings, generator)
        yield f"mix{scale}", Block(up, up, 1, settings, generator)
        seen = up
    yield "head", Conv(seen, settings.outputs, 1, settings, generator, bias=True)
