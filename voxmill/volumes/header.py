"""What a file says about its volume, and which of its axes are z, y, x and channel."""

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from voxmill.geometry import Resampling
from voxmill.runtime.errors import VoxmillError

VoxelSizeUm = tuple[float, float, float]
"""z, y, x, micrometres, as files tell it; `voxmill.geometry.VoxelSize` computes with it."""

VOLUME_DTYPES = ("uint8", "uint16", "int16", "float32")
"""Voxel types of image volumes, the input of the networks."""

LABEL_DTYPES = (
    *("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
    *("float32", "float64"),
)
"""Voxel types of masks and label volumes, for ground truth."""

_MICROMETRES = {
    **dict.fromkeys(("um", "µm", "μm", "micron", "microns", "micrometer", "micrometre"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("inch", "in"), 25400.0),
    **dict.fromkeys(("Å", "å", "angstrom"), 1e-4),
}


@dataclass(frozen=True)
class VolumeHeader:
    """What a volume's file says about it, in the project's axis order z, y, x.

    Parameters
    ----------
    path : str
        File, or folder of planes.
    format : str
        Name for messages, for example "OME-TIFF".
    shape : tuple of int
        Planes, rows, columns (z, y, x).
    dtype : str
        NumPy name of the voxels' type as windows return them (native byte order).
    voxel_size_um : tuple of float or None
        Edge lengths of a voxel (z, y, x), micrometres; None where the file doesn't say.
    voxel_size_source : str
        Where the voxel size is from, or why it isn't known.
    channel : int or None
        The chosen channel, from 0; None where the file has just one.
    windows : bool
        Whether a window can be read without decoding what is before it. Where this is False,
        `unpack` makes a file with windows.
    file_shape : tuple of int
        The array's shape in the file.
    file_axes : str
        A letter per axis of `file_shape`; Q is an axis without a name.
    level : int or None
        The chosen level of a pyramid, from 0; None where the file has no levels.
    time : int or None
        The chosen time point, from 0; None where the file has just one.
    dataset : str or None
        Path of the array inside of a container (Zarr, HDF5); None for other formats.
    translation_um : tuple of float or None
        Where the file places the centre of the first voxel (z, y, x), micrometres. It is kept, not
        applied: coordinates count from the first voxel.
    pattern : str or None
        Which files of a folder are its planes; None where all are.
    own_shape, own_voxel_size_um : tuple or None
        Of the file, where the volume is read at another voxel size: `voxmill.volumes.resampled`.
    """

    path: str
    format: str
    shape: tuple[int, int, int]
    dtype: str
    voxel_size_um: VoxelSizeUm | None
    voxel_size_source: str
    channel: int | None
    windows: bool
    file_shape: tuple[int, ...]
    file_axes: str
    level: int | None = None
    time: int | None = None
    dataset: str | None = None
    translation_um: VoxelSizeUm | None = None
    pattern: str | None = None
    own_shape: tuple[int, int, int] | None = None
    own_voxel_size_um: VoxelSizeUm | None = None

    def __post_init__(self) -> None:
        # JSON turns tuples into lists.
        for name in (
            *("shape", "file_shape", "voxel_size_um", "translation_um"),
            *("own_shape", "own_voxel_size_um"),
        ):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def known_voxel_size_um(self) -> VoxelSizeUm:
        """The voxel size, for what can't do without one.

        Raises
        ------
        VoxmillError
            If the file doesn't say it and none was given.
        """
        if self.voxel_size_um is None:
            raise VoxmillError(
                f"{self.path}: expected a voxel size in the header, found none. Set voxel_size_um "
                "of the volume (z, y, x, micrometres)."
            )
        return self.voxel_size_um

    @property
    def resampling(self) -> Resampling | None:
        """The file's grid of voxels and this one, where the volume is read at another size."""
        return Resampling.between(self.own_shape, self.own_voxel_size_um, self.voxel_size_um)

    @property
    def in_own_voxels(self) -> "VolumeHeader":
        """The header of the same volume in the file's voxels."""
        if self.own_shape is None:
            return self
        return dataclasses.replace(
            self,
            shape=self.own_shape,
            voxel_size_um=self.own_voxel_size_um,
            own_shape=None,
            own_voxel_size_um=None,
        )

    @property
    def nbytes(self) -> int:
        """Size of the voxels in memory."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class VolumeAxes:
    """Which axes of the file's array are z, y, x, and which one holds channels.

    Parameters
    ----------
    zyx : tuple of int
        Positions of z, y and x among the file's axes.
    channel_axis : int or None
        Position of the channel axis; None where it is missing or of length 1.
    channel : int or None
        Index along it.
    """

    zyx: tuple[int, int, int]
    channel_axis: int | None
    channel: int | None


def find_axes(path: object, shape: tuple[int, ...], axes: str, channel: int | None) -> VolumeAxes:
    """Find z, y, x and the channel among the axes of a file's array.

    The letters of named axes are used as they are. A stack whose planes are called time points or
    images is a volume if it has no z axis. Of four axes without names the channel axis is the last
    if its length is 1, else the first if its length is 1, else the shorter of the two.

    Parameters
    ----------
    path : object
        For messages.
    shape : tuple of int
        Lengths of the file's axes, those of length 1 included.
    axes : str
        A letter per axis: Z, Y, X, C and S (channel, sample), T and I (time, image), Q (unnamed).
    channel : int, optional
        The wanted channel.

    Raises
    ------
    VoxmillError
        If the array is no volume, or the channel is missing or out of range.
    """
    named = "Q" not in axes
    spatial, extra = _named_axes(shape, axes) if named else _unnamed_axes(shape, axes)
    extra = [axis for axis in extra if shape[axis] > 1]
    if min(shape) < 1:
        raise VoxmillError(f"{path}: expected voxels, found an empty array of shape {shape}.")
    if len(extra) > 1 or (named and any(axes[axis] not in "CS" for axis in extra)):
        raise VoxmillError(
            f"{path}: expected a 3D volume (z, y, x) with at most one channel axis, found shape "
            f"{shape} with axes {axes}. Save one volume per file."
        )
    if len(spatial) < 3 or shape[spatial[0]] == 1:
        raise VoxmillError(
            f"{path}: expected a 3D volume (z, y, x), found a 2D image of shape {shape} with axes "
            f"{axes}. Give the whole stack, or the folder that holds its planes."
        )
    z, y, x = spatial
    chosen = _check_channel(path, shape[extra[0]] if extra else 1, channel)
    return VolumeAxes((z, y, x), extra[0], chosen) if extra else VolumeAxes((z, y, x), None, None)


def _named_axes(shape: tuple[int, ...], axes: str) -> tuple[list[int], list[int]]:
    spatial = [axes.find(letter) for letter in "ZYX"]
    if spatial[0] < 0 or shape[spatial[0]] == 1:
        stacks = [i for i, letter in enumerate(axes) if letter in "TI" and shape[i] > 1]
        if len(stacks) == 1:
            spatial[0] = stacks[0]
    spatial = [axis for axis in spatial if axis >= 0]
    return spatial, [i for i in range(len(shape)) if i not in spatial]


def _unnamed_axes(shape: tuple[int, ...], axes: str) -> tuple[list[int], list[int]]:
    samples = [i for i, letter in enumerate(axes) if letter == "S"]
    others = [i for i in range(len(shape)) if i not in samples]
    if len(others) == 4:
        first, last = shape[others[0]], shape[others[-1]]
        samples.append(others.pop(-1 if last == 1 or (first != 1 and last <= first) else 0))
    return others[-3:], samples + others[:-3]


def _check_channel(path: object, count: int, channel: int | None) -> int:
    if channel is None:
        if count == 1:
            return 0
        raise VoxmillError(
            f"{path}: expected one channel, found {count}: choose one with `channel: 0` to "
            f"`channel: {count - 1}`."
        )
    if not 0 <= channel < count:
        raise VoxmillError(
            f"{path}: channel {channel} doesn't exist: expected 0 to {count - 1}, as the file has "
            f"{count} channel{'s' if count > 1 else ''}."
        )
    return channel


def check_dtype(path: object, dtype: np.dtype | None, allowed: tuple[str, ...]) -> str:
    """Name of a voxel type in native byte order; refuse types that are not `allowed`."""
    name = "an unknown type" if dtype is None else np.dtype(dtype).newbyteorder("=").name
    if name in allowed:
        return name
    hint = (
        "save its magnitude or real part as float32"
        if name.startswith("complex")
        else "convert it, for example with `volume.astype(numpy.float32)` or in Fiji with "
        "Image > Type"
    )
    raise VoxmillError(
        f"{path}: expected voxels of type {', '.join(allowed)}, found {name}: {hint}."
    )


def to_micrometres(unit: str | None) -> float | None:
    """Micrometres per unit of length, None where the unit is no length (pixel, unknown).

    >>> to_micrometres("mm")
    1000.0
    """
    unit = (unit or "").strip().replace("\\u00B5", "µ").replace("\\u00b5", "µ")
    return _MICROMETRES.get(unit, _MICROMETRES.get(unit.lower()))


def with_voxel_size(header: VolumeHeader, voxel_size_um: Iterable[float] | None) -> VolumeHeader:
    """A header with a given voxel size (z, y, x), micrometres, in place of the file's; if any."""
    if voxel_size_um is None:
        return header
    size = check_voxel_size(f"{header.path}, voxel_size_um", voxel_size_um)
    return dataclasses.replace(header, voxel_size_um=size, voxel_size_source="given")


def check_voxel_size(origin: str, voxel_size_um: Iterable[float]) -> VoxelSizeUm:
    """Three positive finite numbers (z, y, x), micrometres; `origin` names the key or file."""
    try:
        size = [] if isinstance(voxel_size_um, str) else [float(edge) for edge in voxel_size_um]
    except (TypeError, ValueError):
        size = []
    if len(size) != 3 or not all(math.isfinite(edge) and edge > 0 for edge in size):
        raise VoxmillError(
            f"{origin}: expected a voxel size of three positive numbers (z, y, x) in micrometres, "
            f"found {voxel_size_um!r}."
        )
    z, y, x = size
    return z, y, x
