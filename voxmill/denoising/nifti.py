"""Read and write NIfTI; the output keeps the geometry, header and data type of the input."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import nibabel
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.nifti1 import Nifti1Header, Nifti1Pair

from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import writing
from voxmill.runtime.paths import advice


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


def read_scan(path: str | Path, volume: int | None = None, rician: bool = False) -> Scan:
    """Read a 3D NIfTI file or one volume of a 4D file, and check that it can be denoised.

    Parameters
    ----------
    path : path
        `.nii` or `.nii.gz`.
    volume : int, optional
        Volume of a 4D file, from 0.
    rician : bool
        Whether the noise is treated as Rician: then intensities must not be negative.

    Raises
    ------
    VoxmillError
        If the file is missing, unreadable, not 3D or 4D, or has complex or RGB values; if the
        volume is missing or out of range; if the affine is singular; if intensities are not
        finite, all equal, or negative though they must not be.
    """
    path = Path(path)
    image = _open(path)
    _check_affine(path, image.affine)
    index = _check_volume(path, image.shape, volume)
    proxy = cast(ArrayProxy, image.dataobj)
    try:
        data = np.asarray(proxy[index], dtype=np.float32)
    except (OSError, EOFError, ValueError) as error:
        raise VoxmillError(f"{path}: its voxels cannot be read: {error}") from None
    _check_values(path, data, rician)
    return Scan(
        path=path,
        data=data,
        affine=image.affine,
        header=image.header.copy(),
        slope=float(proxy.slope),
        intercept=float(proxy.inter),
        volume=volume,
    )


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
    if image.shape != scan.data.shape:
        raise VoxmillError(
            f"{path}: expected a {what} of the shape of {scan.path}, {scan.data.shape}, "
            f"found {image.shape}"
        )
    if not np.allclose(image.affine, scan.affine, atol=1e-3):
        raise VoxmillError(
            f"{path}: its affine differs from that of {scan.path}, so this {what} lies elsewhere; "
            "resample it to the grid of the scan."
        )
    return np.asarray(image.dataobj, dtype=np.float32)


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


def _open(path: Path) -> Nifti1Pair:
    if not path.exists():
        raise VoxmillError(f"{path}: this scan does not exist. {advice(path)}")
    try:
        image = nibabel.load(path)
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError) as error:
        raise VoxmillError(f"{path}: expected a NIfTI image (.nii, .nii.gz): {error}") from None
    if not isinstance(image, nibabel.Nifti1Pair):
        raise VoxmillError(f"{path}: expected a NIfTI image, found {type(image).__name__}.")
    kind = image.get_data_dtype()
    if kind.fields or np.issubdtype(kind, np.complexfloating):
        raise VoxmillError(f"{path}: expected one real number per voxel, found {kind}.")
    return image


def _check_affine(path: Path, affine: np.ndarray) -> None:
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise VoxmillError(
            f"{path}: its affine is singular or not finite, so its voxels have no positions: "
            f"{np.round(affine, 4).tolist()}. Repair the header (sform, qform)."
        )


def _check_volume(
    path: Path, shape: tuple[int, ...], volume: int | None
) -> tuple[slice | int, ...]:
    """Return the index of the 3D volume in the file's array."""
    if len(shape) == 3 or (len(shape) == 4 and shape[3] == 1 and volume is None):
        if volume not in (None, 0):
            raise VoxmillError(f"{path}: a 3D scan has no volume {volume}; leave `volume` out.")
        return (slice(None),) * 3 if len(shape) == 3 else (*(slice(None),) * 3, 0)
    if len(shape) != 4:
        raise VoxmillError(f"{path}: expected a 3D or 4D image, found {len(shape)}D: {shape}.")
    if volume is None:
        raise VoxmillError(
            f"{path}: expected one volume, found a series of {shape[3]} volumes: say which one to "
            "denoise with `volume`."
        )
    if not 0 <= volume < shape[3]:
        raise VoxmillError(
            f"{path}: expected a volume from 0 to {shape[3] - 1}, found volume {volume}."
        )
    return (*(slice(None),) * 3, volume)


def _check_values(path: Path, data: np.ndarray, rician: bool) -> None:
    bad = int(data.size - np.isfinite(data).sum())
    if bad:
        raise VoxmillError(f"{path}: {bad} of {data.size} voxels are NaN or infinite.")
    low, high = float(data.min()), float(data.max())
    if low == high:
        raise VoxmillError(f"{path}: every voxel is {low:g}: there is nothing to denoise.")
    if rician and low < 0:
        raise VoxmillError(
            f"{path}: found intensities down to {low:g}, which a magnitude image with Rician noise "
            "cannot have; set `noise: gaussian` for this scan, or use the magnitude image."
        )
