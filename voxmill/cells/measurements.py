"""Size, shape and light of labelled cells.

Every cell is measured in a window of one size around its seed, whatever the blocks in which the
volumes are read: the numbers are the same for every block size.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.spatial import KDTree

from voxmill.cells.table import PLACE
from voxmill.geometry import Box, Triple, VoxelSize
from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.blocks import SerialReader, map_blocks
from voxmill.volumes.protocols import ReadableVolume

# The background is taken from unlabelled voxels at this distance from the cell, in smallest edges:
# beyond the blur of its own light, and near enough to be the same tissue.
SHELL_EDGES = (2.0, 6.0)
LEAST_SHELL_VOXELS = 8

MEASURES = {
    "volume_um3": "{:.4f}",
    "equivalent_diameter_um": "{:.4f}",
    "axis_1_um": "{:.4f}",
    "axis_2_um": "{:.4f}",
    "axis_3_um": "{:.4f}",
    "surface_um2": "{:.4f}",
    "sphericity": "{:.5f}",
    "mean_intensity": "{:.4f}",
    "integrated_intensity": "{:.4f}",
    "background": "{:.4f}",
    "corrected_intensity": "{:.4f}",
    "contrast": "{:.5f}",
    "nearest_um": "{:.4f}",
    "at_border": "{:d}",
}
"""Columns of a measured cell, and how they are written. The axes are those of the ellipsoid with
the same second moments, the longest first. Intensities are in the image's own units: their mean,
their sum, the median of the background around, the sum of what is above it, and (mean - background)
/ background. `nearest_um` is the distance to the nearest other cell's place. `at_border` is 1 for a
cell that reaches the border of the volume. A cell without voxels has the volume 0 and no more."""


def measure_cells(
    labels: ReadableVolume,
    image: ReadableVolume,
    cells: pd.DataFrame,
    voxel_size_um: Sequence[float] | VoxelSize,
    reach: Triple,
    block_vox: int = 192,
    threads: int = 1,
) -> pd.DataFrame:
    """Measure the cells of a table.

    Parameters
    ----------
    labels : ReadableVolume
        The id of each voxel's cell, 0 for none.
    image : ReadableVolume
        Grey values, of the same shape.
    cells : pandas.DataFrame
        With the columns id, z_vox, y_vox and x_vox.
    voxel_size_um : (3,) float
    reach : (3,) int
        How far from its place a cell may have voxels, z, y, x.
    block_vox, threads : int
        Edge of a block and blocks worked on at once; without influence on the result.

    Returns
    -------
    pandas.DataFrame
        The columns `MEASURES`, in the order of the table.

    Raises
    ------
    VoxmillError
        If the volumes differ in shape.
    """
    size, readers = VoxelSize.of(voxel_size_um), (SerialReader(labels), SerialReader(image))
    if readers[0].shape != readers[1].shape:
        raise VoxmillError(
            f"expected labels of the image's shape {readers[1].shape}, found {readers[0].shape}"
        )
    whole = Box.from_shape(readers[0].shape)
    places = cells[PLACE].to_numpy(float).reshape(-1, 3)
    voxels, ids = np.rint(places).astype(np.int64), cells["id"].to_numpy()
    shell = [math.ceil(SHELL_EDGES[1] * min(size) / edge) + 1 for edge in size]
    margin = [a + b for a, b in zip(reach, shell, strict=True)]

    def work(block: Box) -> list[tuple[int, dict[str, float]]]:
        rows = np.flatnonzero(block.contains(voxels))
        if not len(rows):
            return []
        window = block.grow(margin, within=whole)
        parts = [reader.read_window(*window) for reader in readers]
        measured = []
        for row in rows.tolist():
            own = Box.from_shape((1, 1, 1), voxels[row]).grow(margin, within=whole)
            inner = own.relative_to(window.start).slices
            cut = [part[inner] for part in parts]
            measured.append((row, measure(cut[0], cut[1], int(ids[row]), own, whole, size)))
        return measured

    results = map_blocks(work, whole.blocks(block_vox), threads, "cells measured")
    by_row = dict(pair for part in results for pair in part)
    table = pd.DataFrame([by_row[row] for row in range(len(cells))], columns=list(MEASURES))
    table["nearest_um"] = nearest_um(size.to_um(places))
    return table.astype({"at_border": "int64"})


def measure(
    labels: np.ndarray, image: np.ndarray, name: int, window: Box, whole: Box, size: VoxelSize
) -> dict[str, float]:
    """Measures of one cell in its window; all but the distance to the nearest cell."""
    mask = labels == name
    places = np.argwhere(mask)
    if not len(places):
        return {"volume_um3": 0.0, "at_border": 0}
    lowest, highest = places.min(axis=0), places.max(axis=0) + 1
    start = np.asarray(window.start)
    at_border = ((lowest + start <= whole.start) | (highest + start >= whole.stop)).any()
    volume = len(places) * size.volume_um3
    area = surface_um2(mask[tuple(map(slice, lowest, highest))], size)
    axes = dict(zip(("axis_1_um", "axis_2_um", "axis_3_um"), axes_um(places, size), strict=True))
    values = image[mask].astype(np.float64)
    background = background_of(labels, image, mask, size)
    return {
        "volume_um3": volume,
        "equivalent_diameter_um": (6 * volume / math.pi) ** (1 / 3),
        **axes,
        "surface_um2": area,
        "sphericity": math.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / area,
        "mean_intensity": values.mean(),
        "integrated_intensity": values.sum(),
        "background": background,
        "corrected_intensity": values.sum() - background * len(values),
        "contrast": (values.mean() - background) / background if background else math.nan,
        "at_border": int(at_border),
    }


def axes_um(places: np.ndarray, size: VoxelSize) -> list[float]:
    """Axes of the ellipsoid with the second moments of voxels (K, 3), the longest first.

    A voxel counts as its whole cuboid, whose moments are those of its middle and a twelfth of its
    edges squared: so a single voxel has axes as well.
    """
    points = size.to_um(places)
    centred = points - points.mean(axis=0)
    moments = centred.T @ centred / len(points) + np.diag(size.array**2) / 12
    lengths: list[float] = (2 * np.sqrt(5 * np.linalg.eigvalsh(moments)[::-1])).tolist()
    return lengths


def surface_um2(mask: np.ndarray, size: VoxelSize) -> float:
    """Area of the surface through a mask, by marching cubes.

    The mask's steps count: for a ball of 3 to 8 voxels' radius it is a tenth more than the ball's.
    """
    from skimage.measure import marching_cubes, mesh_surface_area  # slow to import

    padded = np.pad(mask, 1).astype(np.float32)
    vertices, faces, _, _ = marching_cubes(padded, 0.5, spacing=tuple(size))
    return float(mesh_surface_area(vertices, faces))


def background_of(
    labels: np.ndarray, image: np.ndarray, mask: np.ndarray, size: VoxelSize
) -> float:
    """Median grey value of unlabelled voxels around a cell; NaN where there are too few."""
    far = ndimage.distance_transform_edt(~mask, sampling=tuple(size)) / min(size)
    shell = (labels == 0) & (far >= SHELL_EDGES[0]) & (far <= SHELL_EDGES[1])
    if np.count_nonzero(shell) < LEAST_SHELL_VOXELS:
        return math.nan
    return float(np.median(image[shell]))


def nearest_um(points_um: np.ndarray) -> np.ndarray:
    """Distance of each point (K, 3) to the nearest other one; NaN where there is no other."""
    if len(points_um) < 2:
        return np.full(len(points_um), np.nan)
    distances, _ = KDTree(points_um).query(points_um, k=2)
    return np.asarray(distances)[:, 1]
