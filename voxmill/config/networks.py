"""Shapes of the networks; torch-free, since the Snakefile checks them."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field
from pydantic.json_schema import SkipJsonSchema

from voxmill.config.base import Count, Flag, Section, SettingError, Text, Whole, section


def _odd(size: int) -> int:
    if size % 2 == 0:
        raise ValueError
    return size


Kernel = Annotated[
    Count, AfterValidator(_odd), Field(json_schema_extra={"expected": "an odd integer >= 1"})
]
Channels = Annotated[tuple[Count, ...], Field(min_length=1)]
Activation = Literal["leaky_relu", "swish", "elu", "none"]
Padding = Literal["zero", "reflection"]
Downsampling = Literal["stride", "average", "max", "lanczos2"]
Upsampling = Literal["nearest", "trilinear"]
ACTIVATIONS, PADDINGS = get_args(Activation), get_args(Padding)
DOWNSAMPLINGS, UPSAMPLINGS = get_args(Downsampling), get_args(Upsampling)


@section("networks")
class NetworkSection(Section):
    """One trained model of a configuration."""

    weights: Annotated[
        Text,
        Field(
            pattern=r"\.(safetensors|pt2)$",
            json_schema_extra={"expected": "a file name that ends with .safetensors or .pt2"},
        ),
    ]
    """Weights as safetensors, or a program of torch.export (.pt2); the model card (.json) lies
    beside them."""


@section("msdnet")
class MSDNetSettings(Section):
    """Shape of a 3D mixed-scale dense network (Pelt & Sethian, PNAS 2017)."""

    depth: Count = 100
    """Number of dilated layers."""
    width: Count = 1
    """Feature maps per layer, all of one layer with the same dilation."""
    dilations: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    """Cycle of dilations in voxels: layer i has `dilations[i % len(dilations)]`."""
    inputs: Count = 1
    """Number of input channels."""
    outputs: Count = 1
    """Number of output maps."""

    def dilation(self, layer: int) -> int:
        """Dilation of a layer, voxels."""
        return self.dilations[layer % len(self.dilations)]

    def maps_before(self, layer: int) -> int:
        """Number of maps that a layer sees: the input and all earlier layers' maps."""
        return self.inputs + layer * self.width

    @property
    def receptive_radius_vox(self) -> int:
        """Voxels on each side that can influence an output voxel: the sum of the dilations."""
        return sum(self.dilation(layer) for layer in range(self.depth))

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor in the weights file."""
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.depth):
            shapes[f"weights.{layer}"] = (self.width, self.maps_before(layer), 3, 3, 3)
            shapes[f"biases.{layer}"] = (self.width,)
        shapes["final_weight"] = (self.outputs, self.maps_before(self.depth))
        shapes["final_bias"] = (self.outputs,)
        return shapes


@section("exported")
class ExportedSettings(Section):
    """What must be known about a program that `torch.export` wrote (a `.pt2` file)."""

    halo_vox: Annotated[Whole, Field(ge=0)]
    """Voxels on each side that can influence an output voxel."""
    bytes_per_voxel: Count
    """Peak memory of a float32 evaluation, for the memory plan."""
    shape_multiple: Count = 1
    """Edges of a box must be multiples of it, as networks with pooling need; boxes are filled up
    with zeros behind their last voxels."""
    inputs: Count = 1
    """Number of input channels."""
    outputs: Count = 1
    """Number of output maps (logits)."""

    @property
    def receptive_radius_vox(self) -> int:
        """The declared halo."""
        return self.halo_vox


@section("skip3d")
class Skip3DSettings(Section):
    """Shape of `voxmill.networks.skip3d.Skip3D`; the default has 6.6 million parameters."""

    inputs: Count = 1
    """Channels of the input; the scan is the first (unless the denoising's `input` is noise, for
    which 32 are usual), all others are random."""
    outputs: Count = 1
    """Channels of the output; a denoising has 1."""
    down: Channels = (128, 128, 128, 128, 128)
    """Channels of the encoder at each scale, the finest first."""
    up: Channels = (128, 128, 128, 128, 128)
    """Channels of the decoder at each scale."""
    skip: Annotated[tuple[Annotated[Whole, Field(ge=0)], ...], Field(min_length=1)] = (
        16,
        16,
        16,
        16,
        16,
    )
    """Channels of the skip connection at each scale; 0 leaves that connection out."""
    down_kernel: Kernel = 3
    """Kernel size of the encoder, voxels."""
    up_kernel: Kernel = 3
    """Kernel size of the decoder, voxels."""
    skip_kernel: Kernel = 1
    """Kernel size of the skip connections, voxels."""
    activation: Activation | SkipJsonSchema[Callable[[], Any]] = "leaky_relu"
    """After each norm. In Python also anything that makes a torch module when called without
    arguments."""
    padding: Padding = "zero"
    """What lies outside of the volume for every convolution: zero, or its reflection."""
    downsampling: Downsampling = "stride"
    """How the encoder halves a feature map: a convolution of stride two, or one of stride one
    followed by average or max over 2 x 2 x 2 voxels or by a lanczos2 kernel of 8 voxels a side."""
    upsampling: Upsampling = "trilinear"
    """How the decoder doubles a feature map."""
    sigmoid: Flag = True
    """End with a sigmoid, so that outputs lie in (0, 1)."""
    bias: Flag = False
    """Biases in the convolutions that a norm follows (where they change nothing but the path of
    the optimiser); the last convolution has one in either case."""

    def __post_init__(self) -> None:
        if not len(self.down) == len(self.up) == len(self.skip):
            raise SettingError(
                "down, up, skip",
                "expected one number per scale in each, found "
                f"{len(self.down)}, {len(self.up)} and {len(self.skip)} scales",
            )

    @property
    def scales(self) -> int:
        """Number of times that the encoder halves the volume."""
        return len(self.down)

    @property
    def least_side_vox(self) -> int:
        """The shortest side that a volume may have, in voxels.

        Batch statistics need more than one voxel at the coarsest scale, and a reflection needs
        more voxels than it adds.
        """
        radius = max(self.down_kernel, self.up_kernel, self.skip_kernel) // 2
        coarsest = radius + 1 if self.padding == "reflection" else 2
        # The side at scale s is ceil(side / 2**s).
        return (coarsest - 1) * 2**self.scales + 1

    def parameter_count(self) -> int:
        """Number of trained parameters."""
        count = 0
        for scale in range(self.scales):
            seen = self.down[scale - 1] if scale else self.inputs
            down, up, skip = self.down[scale], self.up[scale], self.skip[scale]
            below = self.up[scale + 1] if scale + 1 < self.scales else down
            count += self._conv(seen, skip, self.skip_kernel) if skip else 0
            count += self._conv(seen, down, self.down_kernel)
            count += self._conv(down, down, self.down_kernel)
            count += 2 * (below + skip)
            count += self._conv(below + skip, up, self.up_kernel) + self._conv(up, up, 1)
        return count + self.up[0] * self.outputs + self.outputs

    def _conv(self, inputs: int, outputs: int, kernel: int) -> int:
        """Parameters of one convolution and of the norm that follows it."""
        return inputs * outputs * kernel**3 + (outputs if self.bias else 0) + 2 * outputs


NETWORK_SETTINGS: dict[str, type[MSDNetSettings] | type[ExportedSettings]] = {
    "msdnet": MSDNetSettings,
    "exported": ExportedSettings,
}
NetworkKind = Literal["msdnet", "exported"]


def check_settings(network: str, settings: Mapping) -> MSDNetSettings | ExportedSettings:
    """Settings of a network as its frozen dataclass.

    Raises
    ------
    SettingError
        If the network is not registered, or a setting is unknown or out of range.
    """
    if network not in NETWORK_SETTINGS:
        raise SettingError(
            "network", f"expected one of {', '.join(NETWORK_SETTINGS)}, found {network!r}"
        )
    return NETWORK_SETTINGS[network].from_dict(settings)
