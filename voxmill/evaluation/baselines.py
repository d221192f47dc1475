"""Difference of Gaussians: the detector without learning that a network has to beat.

A cell is a local maximum of G(s) - G(1.6 s), with s in micrometres on anisotropic voxels. A ball of
diameter d answers most at s = d / (2 sqrt(3)) (Lindeberg, "Feature detection with automatic scale
selection", IJCV 30(2), 1998; the ratio 1.6 after Marr & Hildreth, "Theory of edge detection",
Proc. R. Soc. B 207, 1980). The volume is read block by block, and the cells don't depend on the
blocks.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import ndimage

from voxmill.cells.maxima import ball, local_maxima, margin
from voxmill.cells.table import COLUMNS
from voxmill.config.baseline import DogSettings
from voxmill.evaluation.thresholds import best_threshold
from voxmill.geometry import Box, VoxelSize
from voxmill.volumes.blocks import ArrayVolume, SerialReader, map_blocks
from voxmill.volumes.protocols import ReadableVolume

SIGMA_RATIO = 1.6


def find_cells_dog(
    volume: np.ndarray | ReadableVolume,
    settings: DogSettings,
    voxel_size_um: Iterable[float],
    scale: float = 1.0,
    threads: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Local maxima of the difference of Gaussians.

    Parameters
    ----------
    volume : (z, y, x) array or ReadableVolume
        Grey values.
    settings : DogSettings
    voxel_size_um : (3,) float
        Edge lengths of a voxel, z, y, x.
    scale : float
        Relative filter scale.
    threads : int
        Blocks worked on at once.

    Returns
    -------
    points : (N, 3) float array
        Voxels, z, y, x; the best first.
    scores : (N,) float array
        Response, grey values.
    """
    size = VoxelSize.of(voxel_size_um)
    reader = SerialReader(ArrayVolume(volume) if isinstance(volume, np.ndarray) else volume)
    whole = Box.from_shape(reader.shape)
    sigma = scale * settings.cell_diameter_um / (2 * np.sqrt(3)) / size.array
    reach = np.ceil(4 * SIGMA_RATIO * sigma).astype(int)
    apart_um = settings.min_distance_um or settings.cell_diameter_um / 2
    apart = ball(apart_um, size)
    around = ball(apart_um / 2, size, at_least_vox=1)
    # At 0 or below nothing is brighter than its surroundings.
    threshold = max(settings.threshold, 1e-6)

    def work(block: Box) -> tuple[np.ndarray, np.ndarray]:
        window = block.grow(margin(apart, around), within=whole)
        outer = window.grow(reach, within=whole)
        grey = reader.read_window(*outer).astype(np.float32)
        response = difference_of_gaussians(grey, sigma)[window.relative_to(outer.start).slices]
        return local_maxima(response, block, window.start, threshold, apart, around)[:2]

    blocks = whole.blocks(int(settings.block_vox))
    parts = list(map_blocks(work, blocks, threads, "difference of Gaussians"))
    points, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((points[:, 2], points[:, 1], points[:, 0], -scores))
    return points[order], scores[order]


def difference_of_gaussians(grey: np.ndarray, sigma_vox: np.ndarray) -> np.ndarray:
    """G(sigma) - G(1.6 sigma) of a (z, y, x) float32 array; `sigma_vox` (3,), z, y, x."""
    reach = [int(r) for r in np.ceil(4 * SIGMA_RATIO * np.asarray(sigma_vox))]
    # Both get the radius of the wider one: a block's window then reaches as far as both need.
    narrow = ndimage.gaussian_filter(grey, sigma_vox, mode="nearest", radius=reach)
    wide = np.asarray(sigma_vox) * SIGMA_RATIO
    return narrow - ndimage.gaussian_filter(grey, wide, mode="nearest", radius=reach)


def find_cells_oracle(
    volume: np.ndarray | ReadableVolume,
    truth: np.ndarray,
    settings: DogSettings,
    voxel_size_um: Iterable[float],
    max_distance_um: float,
    threads: int = 1,
    region: Box | None = None,
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """The best that the filter can do on a volume, its scale and threshold chosen by ground truth.

    This is an upper bound and not a method: whoever wants the cells of a volume does not have its
    ground truth.

    Parameters
    ----------
    volume : (z, y, x) array or ReadableVolume
    truth : (N, 3) float array
        True cells, voxels.
    settings : DogSettings
        Its scales are tried one by one.
    voxel_size_um, max_distance_um
        As in `voxmill.evaluation.matching.match_points`.
    threads : int
        Blocks worked on at once.
    region : Box, optional
        Only cells in it count, true and found.

    Returns
    -------
    points, scores : (M, 3) and (M,) float arrays
        Cells at the best scale and threshold.
    choice : dict
        `scale`, `threshold` and `f1`.
    """
    tried = []
    region = Box.from_shape(volume.shape) if region is None else region
    truth = truth[region.contains(truth)]
    for scale in settings.scales:
        points, scores = find_cells_dog(volume, settings, voxel_size_um, scale, threads)
        inside = region.contains(points)
        points, scores = points[inside], scores[inside]
        threshold, f1 = best_threshold(truth, points, scores, max_distance_um, voxel_size_um)
        keep = scores >= threshold
        choice = {"scale": scale, "threshold": threshold, "f1": f1}
        tried.append((points[keep], scores[keep], choice))
    return max(tried, key=lambda result: result[2]["f1"])


def cells_table(
    points: np.ndarray, scores: np.ndarray, voxel_size_um: Iterable[float]
) -> pd.DataFrame:
    """Points and scores as a table with the columns of cells.csv; their volume is unknown, NaN."""
    size = VoxelSize.of(voxel_size_um)
    order = np.lexsort((points[:, 2], points[:, 1], points[:, 0]))
    points, scores = points[order], scores[order]
    none = np.full(len(points), np.nan)
    numbers = np.column_stack([points, size.to_um(points), scores, none])
    table = pd.DataFrame(numbers, columns=list(COLUMNS)[1:])
    table.insert(0, "id", np.arange(1, len(table) + 1))
    return table
