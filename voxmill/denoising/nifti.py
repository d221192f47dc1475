"""Read and write NIfTI; the output keeps the geometry, header and data type of the input."""

import math
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import nibabel
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.nifti1 import Nifti1Header, Nifti1Pair
from nibabel.spatialimages import HeaderDataError, HeaderTypeError
from nibabel.wrapstruct import WrapStructError

from voxmill.denoising.nifti_checks import (
    check_affine,
    check_values,
    check_volume,
    fill_not_finite,
    without_ones,
)
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.fetched import why_not_here
from voxmill.runtime.files import writing
from voxmill.runtime.paths import advice
from voxmill.volumes.nifti_relatives import conversion

# nibabel raises errors of many kinds for a damaged header.
_NIBABEL_ERRORS = (
    *(nibabel.filebasedimages.ImageFileError, HeaderDataError, HeaderTypeError, WrapStructError),
    *(OSError, EOFError, zlib.error, ArithmeticError, LookupError, TypeError, ValueError),
)
# An extension whose size is no size: nibabel asks for as much memory.
_OPENING_ERRORS = (*_NIBABEL_ERRORS, MemoryError)


@dataclass(frozen=True)
class Scan:
    """One 3D scan.

    Attributes
    ----------
    path : Path
        The file that it came from.
    data : (i, j, k) float32 array
        Intensities in the file's own axis order and units (slope and intercept applied).
    affine : (4, 4) float array
        Voxel indices to millimetres.
    header : Nifti1Header
        That of the file.
    slope, intercept : float
        Intensity = slope * stored number + intercept.
    volume : int or None
        Which volume of a 4D file this is.
    """

    path: Path
    data: np.ndarray
    affine: np.ndarray
    header: Nifti1Header = field(repr=False)
    slope: float = 1.0
    intercept: float = 0.0
    volume: int | None = None


def read_scan(
    path: str | Path,
    volume: int | None = None,
    rician: bool = False,
    fill_nan: float | None = None,
) -> Scan:
    """Read a 3D NIfTI file or one volume of a 4D file, and check that it can be denoised.

    Parameters
    ----------
    path : path
        `.nii` or `.nii.gz`.
    volume : int, optional
        Volume of a 4D file, from 0.
    rician : bool
        Whether the noise is treated as Rician: then intensities must not be negative.
    fill_nan : float, optional
        What NaN and infinite voxels become; refused when left out.

    Raises
    ------
    VoxmillError
        If the file is missing, unreadable, not 3D or 4D, or has complex or RGB values; if the
        volume is missing or out of range; if the affine is singular; if intensities are not
        finite, all equal, or negative though they must not be.
    """
    path = Path(path)
    image = _open(path)
    check_affine(path, image.affine, image.header)
    index = check_volume(path, image.shape, volume)
    proxy = cast(ArrayProxy, image.dataobj)
    data = fill_not_finite(path, _voxels(path, image, index), fill_nan)
    check_values(path, data, rician)
    return Scan(
        path=path,
        data=data,
        affine=image.affine,
        header=image.header.copy(),
        slope=float(proxy.slope),
        intercept=float(proxy.inter),
        volume=volume,
    )


def read_shape(path: str | Path) -> tuple[int, ...]:
    """Shape of a NIfTI image as its header says; errors as of `read_scan`."""
    return tuple(int(edge) for edge in _open(Path(path)).shape)


def read_like(path: str | Path, scan: Scan, what: str) -> np.ndarray:
    """Read a 3D image on the grid of a scan: a reference or a mask.

    Parameters
    ----------
    path : path
    scan : Scan
    what : str
        What the errors call the image, such as "mask".

    Returns
    -------
    (i, j, k) float32 array

    Raises
    ------
    VoxmillError
        If the file is missing or unreadable, or its shape or affine differ from the scan's.
    """
    image = _open(Path(path))
    shape = without_ones(image.shape)
    if shape != scan.data.shape:
        raise VoxmillError(
            f"{path}: expected a {what} of the shape of {scan.path}, {scan.data.shape}, "
            f"found {image.shape}"
        )
    if not _same_grid(image.affine, scan.affine, shape):
        raise VoxmillError(
            f"{path}: its affine differs from that of {scan.path}, so this {what} lies elsewhere; "
            "resample it to the grid of the scan."
        )
    return _voxels(Path(path), image, (slice(None),) * 3 + (0,) * (len(image.shape) - 3))


def _same_grid(affine: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether no corner lies farther than a fourth of a voxel from where the other has it."""
    if not np.isfinite(affine).all():
        return False
    corners = np.array([*np.ndindex(2, 2, 2)]).T * (np.array(shape)[:, None] - 1)
    apart = (affine - other) @ np.vstack([corners, np.ones(8)])
    voxels = np.linalg.solve(other[:3, :3], apart[:3])
    return bool(np.abs(voxels).max() < 0.25)


def write_like(path: str | Path, data: np.ndarray, scan: Scan) -> None:
    """Write a volume with the affine, header and data type of a scan, whole or not at all.

    Integers are rounded and clipped to the range of the scan's data type.

    Parameters
    ----------
    path : path
        The output, `.nii` or `.nii.gz`.
    data : (i, j, k) float array
        In the scan's units.
    scan : Scan
    """
    header = scan.header.copy()
    kind = header.get_data_dtype()
    stored = (np.asarray(data, np.float64) - scan.intercept) / scan.slope
    if np.issubdtype(kind, np.integer):
        limits = np.iinfo(kind)
        # float64 cannot hold the largest 64-bit integer: its next smaller number is the limit.
        top = np.nextafter(float(limits.max), 0) if kind.itemsize == 8 else limits.max
        stored = np.clip(np.rint(stored), limits.min, top)
    image = nibabel.Nifti1Image(stored.astype(kind), scan.affine, header)
    if isinstance(header, nibabel.Nifti2Header):
        image = nibabel.Nifti2Image(stored.astype(kind), scan.affine, header)
    # nibabel computes a new slope unless the header has one.
    image.header.set_slope_inter(scan.slope, scan.intercept)
    image.header["cal_min"] = image.header["cal_max"] = 0
    with writing(path) as scratch:
        nibabel.save(image, scratch)


def _said(error: BaseException) -> str:
    return str(error) or f"{type(error).__name__}: a size in it is no size"


def _open(path: Path) -> Nifti1Pair:
    reason = why_not_here(path)
    if reason is None and not path.exists():
        raise VoxmillError(f"{path}: this scan does not exist. {advice(path)}")
    if reason is not None:
        raise VoxmillError(f"{path}: this scan can't be read: {reason}.")
    try:
        image = nibabel.load(path)
    except _OPENING_ERRORS as error:
        raise VoxmillError(
            f"{path}: expected a NIfTI image (.nii, .nii.gz): {_said(error)}. "
            f"{_remedy(path)}".rstrip()
        ) from None
    if not isinstance(image, nibabel.Nifti1Pair):
        found = type(image).__name__
        raise VoxmillError(
            f"{path}: expected a NIfTI image, found {found}. {_remedy(path)}".rstrip()
        )
    kind = image.get_data_dtype()
    if kind.fields or np.issubdtype(kind, np.complexfloating):
        name = "colours (RGB)" if kind.fields else kind
        hint = "one channel" if kind.fields else "the magnitude"
        raise VoxmillError(
            f"{path}: expected one real number per voxel, found {name}. Save {hint} of it as "
            "float32."
        )
    if min(image.shape, default=0) < 1:
        raise VoxmillError(f"{path}: expected voxels, found an empty image of shape {image.shape}.")
    return image


def _remedy(path: Path) -> str:
    """What to do about a file that is no NIfTI, where that can be told."""
    if not path.is_file():
        return ""
    with open(path, "rb") as file:
        head = file.read(352)
    if remedy := conversion(path, head):
        return remedy
    packed = head[:2] == b"\x1f\x8b"
    if packed and path.suffix != ".gz":
        return "It is gzipped: rename it to .nii.gz."
    return "It is not gzipped: rename it to .nii." if not packed and path.suffix == ".gz" else ""


def _voxels(path: Path, image: Nifti1Pair, index: tuple[slice | int, ...]) -> np.ndarray:
    """Voxels of an image in float32; refuse a file that is shorter than its header says."""
    proxy = cast(ArrayProxy, image.dataobj)
    needed = math.prod(image.shape) * image.get_data_dtype().itemsize
    try:
        file = Path(image.file_map["image"].filename or path)
        size = file.stat().st_size
        # A packed byte holds 1032 at most; what needs more is not allocated.
        held = size * 1100 if file.suffix in (".gz", ".bz2", ".zst") else size - proxy.offset
        if held < needed:
            raise EOFError(f"the header announces {needed} bytes, found {size}")
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(proxy[index], dtype=np.float32)
    except _NIBABEL_ERRORS as error:
        raise VoxmillError(f"{path}: its voxels cannot be read: {error}") from None
