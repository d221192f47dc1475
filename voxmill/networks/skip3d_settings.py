"""Shape of the 3D encoder-decoder with skip connections, checked without importing torch."""

from collections.abc import Callable
from dataclasses import dataclass

from voxmill.runtime.errors import VoxmillError

ACTIVATIONS = ("leaky_relu", "swish", "elu", "none")
PADDINGS = ("zero", "reflection")
DOWNSAMPLINGS = ("stride", "average", "max", "lanczos2")
UPSAMPLINGS = ("nearest", "trilinear")


@dataclass(frozen=True)
class Skip3DSettings:
    """Shape of `voxmill.networks.skip3d.Skip3D`; the default has 6.6 million parameters.

    Parameters
    ----------
    inputs, outputs : int
        Channels of the input and of the output.
    down, up, skip : tuple of int
        Channels of the encoder, of the decoder and of the skip connection at each scale, the
        finest first; all three equally long. A skip of 0 leaves that connection out.
    down_kernel, up_kernel, skip_kernel : int
        Kernel sizes in voxels, odd.
    activation : str or callable
        One of `ACTIVATIONS`, or anything that makes a torch module when called without arguments.
    padding : str
        What lies outside of the volume for every convolution: `zero`, or its `reflection`.
    downsampling : str
        How the encoder halves a map: a convolution of `stride` two, or one of stride one followed
        by `average` or `max` over 2 x 2 x 2 voxels or by a `lanczos2` kernel of 8 voxels a side.
    upsampling : str
        How the decoder doubles a map: `nearest` or `trilinear`.
    sigmoid : bool
        End with a sigmoid, so that outputs lie in (0, 1).
    bias : bool
        Biases in the convolutions that a norm follows (where they change nothing but the path of
        the optimiser); the last convolution has one in either case.
    """

    inputs: int = 1
    outputs: int = 1
    down: tuple[int, ...] = (128, 128, 128, 128, 128)
    up: tuple[int, ...] = (128, 128, 128, 128, 128)
    skip: tuple[int, ...] = (16, 16, 16, 16, 16)
    down_kernel: int = 3
    up_kernel: int = 3
    skip_kernel: int = 1
    activation: str | Callable = "leaky_relu"
    padding: str = "zero"
    downsampling: str = "stride"
    upsampling: str = "trilinear"
    sigmoid: bool = True
    bias: bool = False

    def __post_init__(self):
        for key in ("down", "up", "skip"):
            value = getattr(self, key)
            object.__setattr__(self, key, tuple(value) if isinstance(value, list) else value)
            least = 0 if key == "skip" else 1
            if not isinstance(getattr(self, key), tuple) or not getattr(self, key):
                raise VoxmillError(
                    f"skip3d setting {key}: expected channels per scale, found {value!r}"
                )
            for channels in getattr(self, key):
                _check_integer(key, channels, least)
        if not len(self.down) == len(self.up) == len(self.skip):
            raise VoxmillError(
                "skip3d settings down, up, skip: expected one number per scale in each, found "
                f"{len(self.down)}, {len(self.up)} and {len(self.skip)} scales"
            )
        for key in ("inputs", "outputs"):
            _check_integer(key, getattr(self, key), 1)
        for key in ("down_kernel", "up_kernel", "skip_kernel"):
            _check_integer(key, getattr(self, key), 1)
            if getattr(self, key) % 2 == 0:
                raise VoxmillError(
                    f"skip3d setting {key}: expected an odd size, found {getattr(self, key)}"
                )
        if not callable(self.activation):
            _check_choice("activation", self.activation, ACTIVATIONS)
        _check_choice("padding", self.padding, PADDINGS)
        _check_choice("downsampling", self.downsampling, DOWNSAMPLINGS)
        _check_choice("upsampling", self.upsampling, UPSAMPLINGS)

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


def _check_integer(key: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise VoxmillError(f"skip3d setting {key}: expected integers >= {least}, found {value!r}")


def _check_choice(key: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise VoxmillError(f"skip3d setting {key}: expected one of {choices}, found {value!r}")
