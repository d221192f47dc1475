"""Can a scan be denoised: its affine, its volumes and its intensities."""

import logging
from pathlib import Path

import numpy as np
from nibabel.nifti1 import Nifti1Header

from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.nifti_scale import UNITS_UM

log = logging.getLogger(__name__)

_USUAL_MM = (0.01, 10.0)
"""Edges of the voxels of MRI scanners, small animals' included."""


def without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without the axes of length 1 after the third."""
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def check_affine(path: Path, affine: np.ndarray, header: Nifti1Header) -> None:
    """Refuse an affine without volume, whatever its unit; warn of voxels that no scanner makes."""
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    regular = np.isfinite(affine).all() and (edges > 0).all()
    if not regular or abs(np.linalg.det(affine[:3, :3] / edges)) < 1e-6:
        raise VoxmillError(
            f"{path}: its affine is singular or not finite, so its voxels have no positions: "
            f"{affine.tolist()}. Repair the header (sform, qform)."
        )
    edges_mm = edges * (UNITS_UM.get(int(header["xyzt_units"]) & 7, 1e3) / 1e3)
    if not (_USUAL_MM[0] <= edges_mm.min() and edges_mm.max() <= _USUAL_MM[1]):
        log.warning(
            "%s: its voxels are %s mm by its header; expected %g to %g: is the unit wrong "
            "(xyzt_units)? Denoising does not depend on it",
            path, " x ".join(f"{edge:.4g}" for edge in edges_mm), *_USUAL_MM,
        )  # fmt: skip


def check_volume(path: Path, shape: tuple[int, ...], volume: int | None) -> tuple[slice | int, ...]:
    """Return the index of the 3D volume in the file's array."""
    ones = (0,) * (len(shape) - len(without_ones(shape)))
    shape = without_ones(shape)
    if len(shape) == 3:
        if volume not in (None, 0):
            raise VoxmillError(f"{path}: a 3D scan has no volume {volume}; leave `volume` out.")
        return (*(slice(None),) * 3, *ones)
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
    return (*(slice(None),) * 3, volume, *ones)


def fill_not_finite(path: Path, data: np.ndarray, fill_nan: float | None) -> np.ndarray:
    """Replace NaN and infinite voxels, or refuse them."""
    finite = np.isfinite(data)
    bad = int(data.size - finite.sum())
    if not bad:
        return data
    if fill_nan is None:
        raise VoxmillError(
            f"{path}: {bad} of {data.size} voxels are NaN or infinite. Replace them, for example "
            "with `numpy.nan_to_num`, or set `denoising.fill_nan: 0` if they are background."
        )
    log.warning("%s: %d of %d voxels are not finite, set to %g", path, bad, data.size, fill_nan)
    return np.where(finite, data, np.float32(fill_nan))


def check_values(path: Path, data: np.ndarray, rician: bool) -> None:
    """Refuse a constant scan, and negative intensities where the noise is Rician."""
    low, high = float(data.min()), float(data.max())
    if low == high:
        raise VoxmillError(f"{path}: every voxel is {low:g}: there is nothing to denoise.")
    if rician and low < 0:
        raise VoxmillError(
            f"{path}: found intensities down to {low:g}, which a magnitude image with Rician noise "
            "cannot have; set `noise: gaussian` for this scan, or use the magnitude image."
        )
