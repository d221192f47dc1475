"""Writing whole volumes plane by plane as OME-TIFF with a voxel size."""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import DTypeLike

from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import writing
from voxmill.volumes import tiles

# A fixed identifier: a random one would make two runs of the same input differ.
_UUID = "00000000-0000-0000-0000-000000000000"


def write_planes(
    path: str | Path,
    planes: Iterable[np.ndarray],
    shape: Sequence[int],
    dtype: DTypeLike,
    voxel_size_um: Sequence[float] | None = None,
    compression: str | None = None,
) -> None:
    """Write a volume plane by plane as OME-TIFF, BigTIFF from 4 GiB; one plane in memory.

    Fiji (Bio-Formats) and napari read the voxel size from the OME-XML; readers that know only
    TIFF tags get y and x from the resolution tags. The same content gives the same bytes.

    Parameters
    ----------
    path : path
        The output, written whole or not at all.
    planes : iterable of (y, x) arrays
        Exactly `shape[0]` planes in rising z.
    shape, dtype : tuple of int, dtype
        The volume's.
    voxel_size_um : (3,) floats, optional
        Voxel size (z, y, x), micrometres.
    compression : {None, "zlib"}
        Other programs can memory-map an uncompressed volume.

    Raises
    ------
    VoxmillError
        If a plane has another shape or type, or there are more or fewer planes.
    """
    shape, dtype = tuple(map(int, shape)), np.dtype(dtype)
    if compression not in (None, "zlib"):
        raise VoxmillError(f"compression: expected none or zlib, found {compression!r}.")
    metadata, resolution = calibration(voxel_size_um)
    needed_bytes = 0 if compression else math.prod(shape) * dtype.itemsize
    with writing(path, needed_bytes) as scratch:
        big = math.prod(shape) * dtype.itemsize >= tiles.CLASSIC_LIMIT
        with tifffile.TiffWriter(scratch, ome=True, bigtiff=big, byteorder="<") as writer:
            writer.write(
                _checked(path, planes, shape, dtype),
                shape=shape,
                dtype=dtype.newbyteorder("<"),
                photometric="minisblack",
                compression=compression,
                software="voxmill",
                metadata=metadata,
                maxworkers=1,
                **resolution,
            )


def calibration(
    voxel_size_um: Sequence[float] | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What tifffile is told of axes and voxel size: OME metadata, and keywords for TIFF tags."""
    metadata: dict[str, Any] = {"axes": "ZYX", "UUID": _UUID, "Creator": "voxmill"}
    if voxel_size_um is None:
        return metadata, {}
    z_um, y_um, x_um = map(float, voxel_size_um)
    for axis, edge in zip("XYZ", (x_um, y_um, z_um), strict=True):
        metadata |= {f"PhysicalSize{axis}": edge, f"PhysicalSize{axis}Unit": "µm"}
    resolution = {"resolution": (1e4 / x_um, 1e4 / y_um), "resolutionunit": "CENTIMETER"}
    return metadata, resolution


def _checked(
    path: str | Path, planes: Iterable[np.ndarray], shape: tuple[int, ...], dtype: np.dtype
) -> Iterator[np.ndarray]:
    count = 0
    for plane in planes:
        if plane.shape != shape[1:] or plane.dtype != dtype or count == shape[0]:
            raise VoxmillError(
                f"{path}: expected {shape[0]} planes of {shape[1:]} {dtype}, found plane {count} "
                f"of {plane.shape} {plane.dtype}."
            )
        count += 1
        yield np.ascontiguousarray(plane, dtype.newbyteorder("<"))
    if count != shape[0]:
        raise VoxmillError(f"{path}: expected {shape[0]} planes, found {count}.")
