"""Shapes of the networks that find cells; torch-free, since the Snakefile checks them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from voxmill.config.base import Count, Section, SettingError, Whole, rounded, section

MOST_LAYERS, MOST_DILATION_VOX, MOST_PARAMETERS = 10_000, 10_000, 2_000_000_000


def check_size(key: str, found: int, most: int, what: str) -> None:
    """Refuse a size that no machine has memory or time for."""
    if found > most:
        raise SettingError(key, f"expected at most {most} {what}, found {rounded(found)}. Lower it")


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

    def __post_init__(self) -> None:
        """Refuse by arithmetic what would fill the memory or never end."""
        check_size("depth", self.depth, MOST_LAYERS, "layers")
        check_size("dilations", max(self.dilations), MOST_DILATION_VOX, "voxels each")
        check_size("width", self.parameter_count(), MOST_PARAMETERS, "parameters of the network")

    def parameter_count(self) -> int:
        """Number of trained parameters."""
        before = self.depth * self.inputs + self.width * self.depth * (self.depth - 1) // 2
        last = self.outputs * (self.channels_before(self.depth) + 1)
        return self.width * (27 * before + self.depth) + last

    def dilation(self, layer: int) -> int:
        """Dilation of a layer, voxels."""
        return self.dilations[layer % len(self.dilations)]

    def channels_before(self, layer: int) -> int:
        """Number of feature maps that a layer reads: the input's and all earlier layers'."""
        return self.inputs + layer * self.width

    @property
    def receptive_radius_vox(self) -> int:
        """Voxels on each side that can influence an output voxel: the sum of the dilations."""
        return sum(self.dilation(layer) for layer in range(self.depth))

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor in the weights file."""
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.depth):
            shapes[f"weights.{layer}"] = (self.width, self.channels_before(layer), 3, 3, 3)
            shapes[f"biases.{layer}"] = (self.width,)
        shapes["final_weight"] = (self.outputs, self.channels_before(self.depth))
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

    def __post_init__(self) -> None:
        for key in ("halo_vox", "shape_multiple"):
            check_size(key, getattr(self, key), MOST_DILATION_VOX, "voxels")
        for key in ("inputs", "outputs"):
            check_size(key, getattr(self, key), MOST_DILATION_VOX, "channels")

    @property
    def receptive_radius_vox(self) -> int:
        """The declared halo."""
        return self.halo_vox


NETWORK_SETTINGS: dict[str, type[MSDNetSettings] | type[ExportedSettings]] = {
    "msdnet": MSDNetSettings,
    "exported": ExportedSettings,
}
NetworkKind = Literal["msdnet", "exported"]


def check_settings(network: str, settings: Mapping[str, Any]) -> MSDNetSettings | ExportedSettings:
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
