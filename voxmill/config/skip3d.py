"""Shape of the 3D encoder-decoder with skip connections; torch-free."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field
from pydantic.json_schema import SkipJsonSchema

from voxmill.config.base import Count, Flag, Section, SettingError, Whole, rounded, section


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


_MOST_PARAMETERS = 2_000_000_000


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
        if (count := self.parameter_count()) > _MOST_PARAMETERS:
            raise SettingError(
                "down, up, skip",
                f"expected a network of at most {_MOST_PARAMETERS} parameters, found "
                f"{rounded(count)}. Lower channels or kernels",
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
        return int((coarsest - 1) * 2**self.scales + 1)

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
