"""Volumes on disk: reading their headers and windows, writing volumes and tiles.

`read_header` says what a file holds and reads no voxel. `open_volume` reads any box of voxels in
memory of the box and one plane, whatever the size of the volume. `write_planes` writes a volume
plane by plane, `write_tile` a tile with checksums; `sharded`, `pyramid` and `multiscale` write an
OME-Zarr whose parts are made by many jobs. The axis order is z, y, x throughout.

`FORMATS` lists the formats in the order in which they are tried. A new format is a module with
`matches`, `read_header` and `open_windows`, and one entry of that list. `docs/formats.md` says
which files are read and what that costs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.fetched import is_no_file, why_not_here
from voxmill.runtime.paths import advice
from voxmill.volumes import folder, hdf5, nifti, ome_zarr, tiff
from voxmill.volumes.fingerprints import fingerprint
from voxmill.volumes.finite import check_finite
from voxmill.volumes.header import (
    LABEL_DTYPES,
    VOLUME_DTYPES,
    VolumeHeader,
    with_voxel_size,
)
from voxmill.volumes.nifti import unpack
from voxmill.volumes.output import write_planes
from voxmill.volumes.resampled import ResampledWindows, at_voxel_size
from voxmill.volumes.sources import check_source
from voxmill.volumes.tiles import TilePages, is_tile, read_tile, tile_pages, write_tile
from voxmill.volumes.unread import check_local, explain_missing, refuse_unread
from voxmill.volumes.windows import Windows

__all__ = [
    "FORMATS",
    "LABEL_DTYPES",
    "SOURCE_KEYS",
    "VOLUME_DTYPES",
    "TilePages",
    "VolumeHeader",
    "Windows",
    "check_finite",
    "check_source",
    "fingerprint",
    "format_of",
    "is_tile",
    "open_volume",
    "read_header",
    "read_points",
    "read_tile",
    "source_choices",
    "tile_pages",
    "unpack",
    "write_planes",
    "write_tile",
]


SOURCE_KEYS = ("channel", "pattern", "level", "time", "dataset")
"""Keys of a volume in the configuration that choose what is read of a file or folder."""


@dataclass(frozen=True)
class Format:
    """A file format: how to recognise it, read its header and open its windows.

    Parameters
    ----------
    names : str
        For messages.
    matches : callable
        Whether a path with these first 352 bytes (none for a folder) is of this format.
    read_header : callable
        Header of a path, for a channel and the accepted voxel types.
    open_windows : callable
        Windows of a volume with this header.
    choices : tuple of str
        Keys beside the channel that `read_header` takes as keywords.
    update_fingerprint : callable, optional
        `(digest, header, samples, sample_bytes)` feeds a digest with what a folder holds and
        returns the dates of its files.
    """

    names: str
    matches: Callable[[Path, bytes], bool]
    read_header: Callable[..., VolumeHeader]
    open_windows: Callable[[VolumeHeader], Windows]
    choices: tuple[str, ...] = ()
    update_fingerprint: Callable | None = None


FORMATS = (
    Format(
        "TIFF, BigTIFF, OME-TIFF, ImageJ TIFF", tiff.matches, tiff.read_header, tiff.open_windows
    ),
    Format(
        "OME-Zarr and Zarr (folder or .zip)",
        ome_zarr.matches,
        ome_zarr.read_header,
        ome_zarr.open_windows,
        ("level", "time", "dataset"),
        ome_zarr.update_fingerprint,
    ),
    Format(
        "HDF5, BigDataViewer, Imaris",
        hdf5.matches,
        hdf5.read_header,
        hdf5.open_windows,
        ("level", "time", "dataset"),
    ),
    Format(
        "a folder of TIFF planes",
        folder.matches,
        folder.read_header,
        folder.open_windows,
        ("pattern",),
    ),
    Format("NIfTI (.nii, .nii.gz)", nifti.matches, nifti.read_header, nifti.open_windows),
)


def format_of(path: Path) -> Format:
    """The format of a path, by its first bytes.

    Raises
    ------
    VoxmillError
        If it is missing or of no known format.
    """
    if is_no_file(path):
        raise VoxmillError(f"{path}: this volume can't be read: {why_not_here(path)}.")
    try:
        head = b""
        if not path.is_dir():
            with open(path, "rb") as file:
                head = file.read(352)
    except FileNotFoundError:
        if reason := why_not_here(path):
            raise VoxmillError(f"{path}: this volume can't be read: {reason}.") from None
        hint = explain_missing(path) or advice(path)
        raise VoxmillError(f"{path}: this volume does not exist. {hint}") from None
    except (OSError, ValueError) as error:
        if reason := why_not_here(path):
            raise VoxmillError(f"{str(path)!r}: this volume can't be read: {reason}.") from None
        if not isinstance(error, OSError):
            raise
        hint = explain_missing(path)
        raise VoxmillError(
            f"{path}: this volume can't be read ({error.strerror}).{hint and ' '}{hint}"
        ) from None
    refuse_unread(path, head)
    for form in FORMATS:
        if form.matches(path, head):
            return form
    if reason := why_not_here(path):
        raise VoxmillError(f"{path}: expected a volume, but {reason}.")
    known = "; ".join(form.names for form in FORMATS)
    if not head:
        raise VoxmillError(f"{path}: expected {known}, found an empty file. Copy it again.")
    raise VoxmillError(
        f"{path}: expected {known}, found a file that begins with {head[:8]!r}. Convert it, for "
        "example in Fiji with File > Save As > Tiff. Of BigDataViewer give the .h5 that lies "
        "beside the XML, of a Zarr its folder."
    )


def read_header(
    path: str | Path,
    channel: int | None = None,
    voxel_size_um: Sequence[float] | None = None,
    dtypes: Sequence[str] = VOLUME_DTYPES,
    level: int | None = None,
    time: int | None = None,
    dataset: str | None = None,
    pattern: str | None = None,
    resampled_um: Sequence[float] | None = None,
) -> VolumeHeader:
    """Read what a volume's file says about the volume; no voxel is read.

    Parameters
    ----------
    path : path
        A file or a folder of planes. The first bytes decide on the format, not the name.
    channel : int, optional
        Channel to read, from 0; needed where a file has several.
    voxel_size_um : (3,) floats, optional
        Voxel size (z, y, x), used instead of the file's.
    dtypes : tuple of str
        The voxel types that are accepted.
    level : int, optional
        Level of a pyramid, from 0 (the default, the finest).
    time : int, optional
        Time point to read, from 0; needed where a file has several.
    dataset : str, optional
        Path of the image inside of a Zarr or HDF5 container; needed where it holds several.
    pattern : str, optional
        Which files of a folder are its planes; see `voxmill.volumes.plane_names.order_planes`.
    resampled_um : (3,) floats, optional
        Voxel size (z, y, x) to read the volume at: windows are resampled to it, and all boxes are
        in voxels of it. See `voxmill.volumes.resampled`.

    Raises
    ------
    VoxmillError
        If the file is missing, of no known format, shorter than it announces, or holds no single
        3D volume of an accepted type.
    """
    check_local(path)
    path = Path(path)
    form = format_of(path)
    choices: dict[str, Any] = {
        "level": level,
        "time": time,
        "dataset": dataset,
        "pattern": pattern,
    }
    choices = {key: value for key, value in choices.items() if value is not None}
    for key in choices:
        if key not in form.choices:
            takers = "; ".join(other.names for other in FORMATS if key in other.choices)
            raise VoxmillError(
                f"{path}: the key `{key}` is for {takers}, found {form.names}. Leave it out."
            )
    header = form.read_header(path, channel, tuple(dtypes), **choices)
    return at_voxel_size(with_voxel_size(header, voxel_size_um), resampled_um)


def source_choices(section: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of `read_header` that a volume of the configuration holds."""
    return {key: section[key] for key in SOURCE_KEYS if key in section}


def open_volume(header: VolumeHeader) -> Windows:
    """Open a volume to read windows of it; a context manager."""
    windows = format_of(Path(header.path)).open_windows(header.in_own_voxels)
    return windows if header.resampling is None else ResampledWindows(windows, header)


def read_points(header: VolumeHeader, value: float = 1) -> np.ndarray:
    """Coordinates of the voxels that equal `value`; one plane at a time is in memory.

    Returns
    -------
    points : (N, 3) float array
        In voxels, z, y, x, sorted by z, then y, then x.
    """
    found = [np.empty((0, 3))]
    with open_volume(header) as volume:
        for z, plane in volume.planes():
            inside = np.argwhere(plane == value)
            found.append(np.column_stack([np.full(len(inside), float(z)), inside]))
    return np.concatenate(found)
