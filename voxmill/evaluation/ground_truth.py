"""Ground truth of several kinds, read as points in the frame of its volume.

A new kind is a function `(path, frame, voxel size) -> (N, 3) points` and one line in `TRUTH`.
Volumes are read block by block and never as a whole.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from voxmill.cells.components import find_components, find_labels
from voxmill.geometry import Box, VoxelSize
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.paths import advice
from voxmill.volumes import LABEL_DTYPES, Windows, open_volume, read_header
from voxmill.volumes.blocks import SerialReader, map_blocks

# Column names of a table of points and whether their unit is the micrometre.
POINT_COLUMNS = (
    (("z_vox", "y_vox", "x_vox"), False),
    (("z", "y", "x"), False),
    # What napari writes when a layer of points is saved.
    (("axis-0", "axis-1", "axis-2"), False),
    (("z_um", "y_um", "x_um"), True),
)
TABLE_SUFFIXES = {".csv": ",", ".txt": ",", ".tsv": "\t"}
BLOCK_VOX = 192


def read_truth(
    path: str | Path, kind: str | None, shape: Sequence[int], voxel_size_um: Iterable[float]
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

    Returns
    -------
    points : (N, 3) float array
        Centroids in voxels, z, y, x; a voxel's centre is at its index.

    Raises
    ------
    VoxmillError
        If the file can't be read, its kind is unclear or unknown, or it is in another frame: a
        volume of another shape, or points outside of the volume.
    """
    size, frame = VoxelSize.of(voxel_size_um), Box.from_shape(shape)
    if kind is None:
        kind = _infer_kind(path)
    if kind not in TRUTH:
        raise VoxmillError(
            f"{path}: expected a ground truth of kind {', '.join(TRUTH)}, found {kind!r}."
        )
    points = TRUTH[kind](path, frame, size)
    check_inside(path, points, frame, size)
    return points


def _infer_kind(path: str | Path) -> str:
    if Path(path).suffix.lower() in TABLE_SUFFIXES:
        return "points"
    raise VoxmillError(
        f"{path}: the kind of this ground truth can't be told from the file. Set the key `kind` "
        "beside its path to voxels (voxels equal to 1 are centroids), labels (one number for each "
        "cell) or mask (connected components are cells)."
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
    elif frame.contains(size.to_vox(points)).all():
        hint = "As micrometres all lie inside: name the columns z_um,y_um,x_um."
    raise VoxmillError(
        f"{path}: expected points inside the volume of shape {frame.shape} (z, y, x), found "
        f"{int(outside.sum())} of {len(points)} outside, the first at z, y, x = ({first}). {hint}"
    )


def _read_table(path: str | Path, frame: Box, size: VoxelSize) -> np.ndarray:
    separator = TABLE_SUFFIXES.get(Path(path).suffix.lower(), ",")
    try:
        table = pd.read_csv(path, sep=separator, skipinitialspace=True)
    except FileNotFoundError:
        raise VoxmillError(f"{path}: this ground truth does not exist. {advice(path)}") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise VoxmillError(f"{path}: expected a table of points (CSV), found {error}") from None
    for names, micrometres in POINT_COLUMNS:
        if all(name in table.columns for name in names):
            points = _numbers(path, table, names)
            return size.to_vox(points) if micrometres else points
    raise VoxmillError(
        f"{path}: expected the columns {' or '.join(','.join(c) for c, _ in POINT_COLUMNS)}, found "
        f"{', '.join(map(str, table.columns[:12]))}."
    )


def _numbers(path: str | Path, table: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    columns = [pd.to_numeric(table[name], errors="coerce").astype(float) for name in names]
    points = np.column_stack(columns)
    bad = np.argwhere(~np.isfinite(points))
    if len(bad):
        row, column = bad[0]
        raise VoxmillError(
            f"{path}: expected a number in column {names[column]!r} of data row {row + 1}, found "
            f"{table[names[column]].iloc[row]!r}."
        )
    return points


def _open(path: str | Path, frame: Box) -> Windows:
    """Open a ground truth volume after checking its shape; a context manager."""
    header = read_header(path, dtypes=LABEL_DTYPES)
    if tuple(header.shape) != frame.shape:
        hint = "Is it the ground truth of another volume, or cropped or resampled?"
        if tuple(header.shape)[::-1] == frame.shape:
            hint = "Its axes are in the order x, y, z: transpose it."
        raise VoxmillError(
            f"{path}: expected a ground truth of the volume's shape {frame.shape} (z, y, x), found "
            f"{tuple(header.shape)}. {hint}"
        )
    return open_volume(header)


def _read_voxels(path: str | Path, frame: Box, size: VoxelSize) -> np.ndarray:
    """Voxels equal to 1."""
    with _open(path, frame) as volume:
        reader = SerialReader(volume)

        def work(block: Box) -> tuple[np.ndarray, float]:
            window = reader.read_window(*block)
            return np.argwhere(window == 1) + np.asarray(block.start, dtype=float), window.max()

        parts = list(map_blocks(work, frame.blocks(BLOCK_VOX), 1, "ground truth"))
    points = np.concatenate([found for found, _ in parts])
    largest = max(value for _, value in parts)
    if not len(points) and largest > 0:
        raise VoxmillError(
            f"{path}: expected voxels equal to 1 at the centroids, found none (the largest value "
            f"is {largest}). If its nonzero voxels are cells, its kind is mask or labels."
        )
    return points[np.lexsort(points.T[::-1])]


def _read_labels(path: str | Path, frame: Box, size: VoxelSize) -> np.ndarray:
    """Centroid of every label."""
    with _open(path, frame) as volume:
        try:
            centroids = find_labels(volume, BLOCK_VOX, description="ground truth").centroids
        except VoxmillError as error:
            raise VoxmillError(f"{path}: {error}") from None
    return centroids[np.lexsort(centroids.T[::-1])]


def _read_mask(path: str | Path, frame: Box, size: VoxelSize) -> np.ndarray:
    """Centroid of every 26-connected component of the nonzero voxels."""
    with _open(path, frame) as volume:
        reader = SerialReader(volume)
        regions = find_components(
            lambda box: (reader.read_window(*box) != 0, None),
            frame.shape,
            BLOCK_VOX,
            description="ground truth",
        )
    centroids = regions.centroids
    return centroids[np.lexsort(centroids.T[::-1])]


TRUTH: dict[str, Callable[[str | Path, Box, VoxelSize], np.ndarray]] = {
    "points": _read_table,
    "voxels": _read_voxels,
    "labels": _read_labels,
    "mask": _read_mask,
}
