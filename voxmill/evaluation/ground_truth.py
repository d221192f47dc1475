"""Ground truth of several kinds, read as points in the frame of its volume.

A new kind is a function `(path, frame, voxel size, reading) -> (N, 3) points` and one line in
`TRUTH`.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from voxmill.cells.table import PLACE, read_numbers
from voxmill.config.volumes import MARKERS, TABLE_SUFFIXES, UNREAD_TABLES
from voxmill.evaluation.point_columns import TruthReading
from voxmill.evaluation.point_tables import read_points
from voxmill.evaluation.truth_volumes import read_labels, read_mask, read_voxels
from voxmill.geometry import Box, VoxelSize
from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.header import VolumeHeader


def read_truth(
    path: str | Path,
    kind: str | None,
    shape: Sequence[int],
    voxel_size_um: Iterable[float],
    *,
    volume: VolumeHeader | None = None,
    columns: Sequence[str | int] | None = None,
    units: str | None = None,
    offset_vox: Sequence[float] | None = None,
) -> np.ndarray:
    """Read a ground truth.

    Parameters
    ----------
    path : path
        A table of points, or a volume of the shape `shape`.
    kind : str or None
        A key of `TRUTH`; None for a table, which can only hold points.
    shape : (3,) int
        Shape of the volume that the ground truth belongs to, z, y, x.
    voxel_size_um : (3,) float
        That volume's voxel size, z, y, x.
    volume : VolumeHeader, optional
        That volume. Its affine tells how the voxels of a ground truth in NIfTI lie in it.
    columns, units, offset_vox : optional
        Of a table: the columns of z, y, x by name or by number from 1; vox or um; what is added to
        the points, voxels. See `voxmill.config.volumes`.

    Returns
    -------
    points : (N, 3) float array
        Centroids in voxels, z, y, x; a voxel's centre is at its index.

    Raises
    ------
    VoxmillError
        If the file can't be read, its kind or meaning is unclear or unknown, or it is in another
        frame: a volume of another shape or affine, or points outside of the volume.
    """
    size, frame = VoxelSize.of(voxel_size_um), Box.from_shape(shape)
    if kind is None:
        kind = _infer_kind(path)
    if kind not in TRUTH:
        raise VoxmillError(
            f"{path}: expected a ground truth of kind {', '.join(TRUTH)}, found {kind!r}."
        )
    reading = TruthReading(columns, units, offset_vox, volume)
    points = TRUTH[kind](path, frame, size, reading)
    check_inside(path, points, frame, size)
    return points


def read_checked_truth(path: str | Path, frame: Box, size: VoxelSize) -> np.ndarray:
    """Points (N, 3) of a ground truth that `check_ground_truth` wrote, in voxels, z, y, x.

    Its form is known, so that nothing needs to be found out about it row by row.

    Raises
    ------
    VoxmillError
        If the file is missing or broken, or a point lies outside of the volume.
    """
    points = read_numbers(path, PLACE, "ground truth")[PLACE].to_numpy(float)
    check_inside(path, points, frame, size)
    return points


def _infer_kind(path: str | Path) -> str:
    suffix = Path(path).suffix.lower()
    if suffix in TABLE_SUFFIXES:
        return "points"
    if suffix in UNREAD_TABLES:
        raise VoxmillError(f"{path}: this ground truth is {UNREAD_TABLES[suffix]}.")
    if suffix == ".xml":
        raise VoxmillError(f"{path}: this ground truth holds {MARKERS}.")
    raise VoxmillError(
        f"{path}: the kind of this ground truth can't be told from the file. Set the key `kind` "
        "beside its path to voxels (voxels equal to 1 are centroids), labels (one number for each "
        "cell) or mask (connected components are cells); save points as CSV."
    )


def check_inside(path: str | Path, points: np.ndarray, frame: Box, size: VoxelSize) -> None:
    """Refuse points outside of a volume: those whose nearest voxel is not one of its voxels.

    Parameters
    ----------
    path : path
        The points' file, for the message.
    points : (N, 3) float array
        Voxels, z, y, x.
    frame : Box
        The whole volume.
    size : VoxelSize
        Of the volume.

    Raises
    ------
    VoxmillError
        Naming how many are outside, the first, and the likely cause.
    """
    outside = ~frame.contains(points)
    if not outside.any():
        return
    first = ", ".join(f"{coordinate:g}" for coordinate in points[outside][0])
    hint = (
        "Usual causes: columns in another axis order, micrometres under the names of voxels, or "
        "points of another volume."
    )
    if frame.contains(points[:, ::-1]).all():
        hint = "In the order x, y, z all lie inside: correct the names of the columns."
    elif frame.contains(points - 1).all():
        hint = "Counted from 1 all lie inside: set `offset_vox: [-1, -1, -1]` beside the path."
    elif (points > -0.5).all() and frame.contains(size.to_vox(points)).all():
        hint = "As micrometres all lie inside: name the columns z_um,y_um,x_um."
    raise VoxmillError(
        f"{path}: expected points inside the volume of shape {frame.shape} (z, y, x), found "
        f"{int(outside.sum())} of {len(points)} outside, the first at z, y, x = ({first}). {hint}"
    )


TRUTH: dict[str, Callable[[str | Path, Box, VoxelSize, TruthReading], np.ndarray]] = {
    "points": lambda path, _, size, reading: read_points(path, size, reading),
    "voxels": read_voxels,
    "labels": read_labels,
    "mask": read_mask,
}
