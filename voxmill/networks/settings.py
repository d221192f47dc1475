"""Shapes of the networks, checked without importing torch (the Snakefile does so at parse time)."""

from dataclasses import dataclass

from voxmill.runtime.errors import VoxmillError


@dataclass(frozen=True)
class MSDNetSettings:
    """Shape of a 3D mixed-scale dense network (Pelt & Sethian, PNAS 2017).

    Parameters
    ----------
    depth : int
        Number of dilated layers.
    width : int
        Feature maps per layer, all of one layer with the same dilation.
    dilations : tuple of int
        Cycle of dilations in voxels: layer i has `dilations[i % len(dilations)]`.
    inputs, outputs : int
        Number of input channels and of output maps.
    """

    depth: int = 100
    width: int = 1
    dilations: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    inputs: int = 1
    outputs: int = 1

    def __post_init__(self):
        object.__setattr__(self, "dilations", tuple(self.dilations))
        for key in ("depth", "width", "inputs", "outputs"):
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise VoxmillError(
                    f"msdnet setting {key}: expected an integer >= 1, found {value!r}"
                )
        if not self.dilations or any(not isinstance(d, int) or d < 1 for d in self.dilations):
            raise VoxmillError(
                f"msdnet setting dilations: expected integers >= 1, found {list(self.dilations)}"
            )

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


@dataclass(frozen=True)
class ExportedSettings:
    """What must be known about a program that `torch.export` wrote (a `.pt2` file).

    Parameters
    ----------
    halo_vox : int
        Voxels on each side that can influence an output voxel.
    shape_multiple : int
        Edges of a box must be multiples of it, as networks with pooling need; boxes are filled up
        with zeros behind their last voxels.
    bytes_per_voxel : int
        Peak memory of a float32 evaluation, for the memory plan.
    inputs, outputs : int
        Number of input channels and of output maps (logits).
    """

    halo_vox: int
    bytes_per_voxel: int
    shape_multiple: int = 1
    inputs: int = 1
    outputs: int = 1

    def __post_init__(self):
        for key in self.__dataclass_fields__:
            value, least = getattr(self, key), 0 if key == "halo_vox" else 1
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise VoxmillError(
                    f"exported setting {key}: expected an integer >= {least}, found {value!r}"
                )

    @property
    def receptive_radius_vox(self) -> int:
        """The declared halo."""
        return self.halo_vox
