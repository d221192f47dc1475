"""How the voxels of a ground truth lie in its volume, by the affines of both NIfTI headers.

Label tools write other axis orders and directions than the volume has; the array then has the same
shape and is mirrored or turned.
"""

import gzip
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.header import VolumeHeader
from voxmill.volumes.nifti import is_gzip
from voxmill.volumes.nifti_scale import UNITS_UM

logger = logging.getLogger(__name__)

_REMEDY = (
    "Save it in the volume's frame, for example with nibabel.processing.resample_from_to (order=0) "
    "or SimpleITK's CopyInformation; if the voxels do agree, copy the volume's affine."
)


@dataclass(frozen=True)
class Placement:
    """A permutation of axes, with mirrors, from a ground truth's voxels to its volume's.

    Parameters
    ----------
    axes : (3, 3) int array
        One entry of 1 or -1 in each row and column, z, y, x.
    offset : (3,) int array
        Voxels, z, y, x.
    """

    axes: npt.NDArray[np.int64]
    offset: npt.NDArray[np.int64]

    @property
    def is_identity(self) -> bool:
        """Whether the voxels have the same indices in both."""
        return bool((self.axes == np.eye(3)).all() and not self.offset.any())

    def shape(self, shape: Any) -> tuple[int, ...]:
        """The shape, in the volume's axes, of an array of the ground truth."""
        return tuple(int(n) for n in np.abs(self.axes) @ np.asarray(shape))

    def apply(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Points (N, 3) of the ground truth in the volume's voxels, z, y, x."""
        moved: npt.NDArray[np.float64] = points @ self.axes.T + self.offset
        return moved


SAME = Placement(np.eye(3, dtype=np.int64), np.zeros(3, dtype=np.int64))


def read_affine(header: VolumeHeader) -> npt.NDArray[np.float64] | None:
    """Affine of a NIfTI from voxels x, y, z to micrometres.

    None where the file has none: another format, no form set, a singular matrix.
    """
    if not header.format.startswith("NIfTI") or header.file_axes[:3] != "XYZ":
        return None
    # Slow to import, needed for this format alone.
    from nibabel import Nifti1Header, Nifti2Header
    from nibabel.spatialimages import HeaderDataError

    with open(header.path, "rb") as file:
        packed = is_gzip(file.read(2))
    with (gzip.open if packed else open)(header.path, "rb") as file:
        head = file.read(540)
    kind = Nifti1Header if head[344:347] == b"n+1" else Nifti2Header
    try:
        nifti = kind(head[: int(kind.sizeof_hdr)], check=False)
        if int(nifti["sform_code"]) == 0 and int(nifti["qform_code"]) == 0:
            return None
        affine = np.array(nifti.get_best_affine(), dtype=np.float64)
    except (ValueError, HeaderDataError):
        return None
    affine[:3] *= UNITS_UM.get(int(nifti["xyzt_units"]) & 7, 1e3)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or (lengths == 0).any():
        return None
    usable = abs(np.linalg.det(affine[:3, :3] / lengths)) > 1e-3
    return affine if usable else None


def place(truth: VolumeHeader, volume: VolumeHeader | None) -> Placement:
    """How the voxels of a ground truth lie in its volume.

    Parameters
    ----------
    truth : VolumeHeader
    volume : VolumeHeader or None
        None where it isn't known; a mirrored ground truth is then refused.

    Raises
    ------
    VoxmillError
        If the affines of both say that the voxels lie elsewhere, and no exchange or mirroring of
        axes brings them into the volume.
    """
    affine = read_affine(truth)
    if affine is None:
        return SAME
    if volume is None:
        if _directions(affine) != "x+ y+ z+":
            raise VoxmillError(
                f"{truth.path}: expected a ground truth whose axes run as the volume's do, found "
                f"{_directions(affine)} in its affine, and no affine of the volume to compare. "
                f"{_REMEDY}"
            )
        return SAME
    of_volume = read_affine(volume)
    if of_volume is None:
        # ITK writes x- y- z+ for arrays that have no direction.
        if _directions(affine) not in ("x+ y+ z+", "x- y- z+"):
            logger.warning(
                "%s: its axes run as %s; the volume says nothing about its own, so that voxels are "
                "taken in the order in which they are stored", truth.path, _directions(affine),
            )  # fmt: skip
        return SAME
    return _place(truth, volume, affine, of_volume)


def _place(
    truth: VolumeHeader, volume: VolumeHeader,
    affine: npt.NDArray[np.float64], of_volume: npt.NDArray[np.float64],
) -> Placement:  # fmt: skip
    affine = _same_unit(truth, affine, of_volume)
    step = np.linalg.inv(of_volume) @ affine
    matrix, offset = step[:3, :3][::-1, ::-1], step[:3, 3][::-1]
    axes = np.rint(matrix).astype(np.int64)
    permutes = (np.abs(axes).sum(0) == 1).all() and (np.abs(axes).sum(1) == 1).all()
    mirrored = np.where(axes.sum(1) < 0, np.asarray(volume.shape) - 1, 0)
    placement = Placement(axes, mirrored)
    near = permutes and (np.abs(matrix - axes) @ np.asarray(truth.shape) < 0.5).all()
    fits = near and placement.shape(truth.shape) == volume.shape
    if fits and (np.abs(offset - mirrored) < 0.5).all():
        if not placement.is_identity:
            logger.warning(
                "%s: its axes run as %s, those of the volume as %s: its cells are brought into the "
                "volume's frame", truth.path, _directions(affine), _directions(of_volume),
            )  # fmt: skip
        return placement
    same_way = _directions(affine) == _directions(of_volume)
    bare = _is_bare(affine) or (near and not affine[:3, 3].any())
    if same_way and bare and truth.shape == volume.shape:
        logger.warning(
            "%s: its affine is not the volume's, and looks like that of an array without one: "
            "voxels are taken in the order in which they are stored", truth.path,
        )  # fmt: skip
        return SAME
    if same_way and truth.shape != volume.shape:
        return SAME  # the shape is refused, with a better message
    z, y, x = offset
    raise VoxmillError(
        f"{truth.path}: expected a ground truth in the frame of its volume {volume.path}, found "
        f"axes {_directions(affine)} and the volume's {_directions(of_volume)}, with voxels of "
        f"{_lengths(affine)} and {_lengths(of_volume)} um (x, y, z), and the first voxel at "
        f"z, y, x = ({z:.4g}, {y:.4g}, {x:.4g}) of the volume. {_REMEDY}"
    )


def _same_unit(
    truth: VolumeHeader, affine: npt.NDArray[np.float64], of_volume: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The affine in the volume's unit, where the two differ by a power of 1000 alone."""
    ratio = np.sort(np.linalg.norm(of_volume[:3, :3], axis=0)) / np.sort(
        np.linalg.norm(affine[:3, :3], axis=0)
    )
    for factor in (1e-6, 1e-3, 1e3, 1e6):
        if np.allclose(ratio, factor, rtol=0.01):
            logger.warning("%s: its unit of length is not the volume's, by %g", truth.path, factor)
            return np.diag([factor] * 3 + [1.0]) @ affine
    return affine


def _is_bare(affine: npt.NDArray[np.float64]) -> bool:
    """Whether an affine is that of an array which had none: voxels of 1, the origin at 0."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    unit = any(np.allclose(lengths, one, rtol=1e-6) for one in (1.0, 1e3, 1e6))
    return unit and not affine[:3, 3].any()


def _directions(affine: npt.NDArray[np.float64]) -> str:
    """Along which axis of the scanner the file's axes x, y, z run.

    >>> _directions(np.diag([-2.0, 2.0, 5.0, 1.0]))
    'x- y+ z+'
    """
    matrix = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    rows = np.abs(matrix).argmax(axis=0)
    return " ".join(
        f"{'xyz'[row]}{'+' if matrix[row, i] > 0 else '-'}" for i, row in enumerate(rows)
    )


def _lengths(affine: npt.NDArray[np.float64]) -> str:
    return " x ".join(f"{length:.4g}" for length in np.linalg.norm(affine[:3, :3], axis=0))
