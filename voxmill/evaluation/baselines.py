"""Difference of Gaussians: the detector without learning that a network has to beat.

A cell is a local maximum of G(s) - G(1.6 s), with s in micrometres on anisotropic voxels. A ball of
diameter d answers most at s = d / (2 sqrt(3)) (Lindeberg, "Feature detection with automatic scale
selection", IJCV 30(2), 1998; the ratio 1.6 after Marr & Hildreth, "Theory of edge detection",
Proc. R. Soc. B 207, 1980). The volume is read block by block, and the cells don't depend on the
blocks.
"""

import numpy as np
from scipy import ndimage

from voxmill.cells.maxima import ball, local_maxima, margin
from voxmill.cells.table import COLUMNS
from voxmill.config.baseline import DogSettings
from voxmill.evaluation.matching import check_lengths, incremental_matching
from voxmill.tiles.grid import grow, inside
from voxmill.volumes.blocks import ArrayVolume, SerialReader, block_list, map_blocks

SIGMA_RATIO = 1.6


def find_cells_dog(volume, settings: DogSettings, voxel_size_um, scale: float = 1.0, threads=1):
    """Local maxima of the difference of Gaussians.

    Parameters
    ----------
    volume : (z, y, x) array, or object with `shape` and `read_window(start, stop)`
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
    size = check_lengths(voxel_size_um)
    if isinstance(volume, np.ndarray):
        volume = ArrayVolume(volume)
    reader = SerialReader(volume)
    sigma = scale * settings.cell_diameter_um / (2 * np.sqrt(3)) / size
    reach = np.ceil(4 * SIGMA_RATIO * sigma).astype(int)
    apart = ball(settings.min_distance_um, size)
    around = ball(settings.min_distance_um / 2, size, at_least_vox=1)
    # Below or at 0 nothing is brighter than its surroundings.
    threshold = max(settings.threshold, 1e-6)

    def work(start, stop):
        window = grow(start, stop, margin(apart, around), volume.shape)
        outer = grow(*window, reach, volume.shape)
        grey = reader.read_window(*outer).astype(np.float32)
        response = difference_of_gaussians(grey, sigma)[inside(*window, outer[0])]
        return local_maxima(response, start, stop, window[0], threshold, apart, around)[:2]

    blocks = block_list(volume.shape, int(settings.block_vox))
    parts = list(map_blocks(work, blocks, threads, "difference of Gaussians"))
    points, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((points[:, 2], points[:, 1], points[:, 0], -scores))
    return points[order], scores[order]


def difference_of_gaussians(grey, sigma_vox):
    """G(sigma) - G(1.6 sigma) of a float32 array; `sigma_vox` z, y, x."""
    reach = [int(r) for r in np.ceil(4 * SIGMA_RATIO * np.asarray(sigma_vox))]
    # Both with one radius: the window of a block then reaches as far as both need.
    narrow = ndimage.gaussian_filter(grey, sigma_vox, mode="nearest", radius=reach)
    wide = np.asarray(sigma_vox) * SIGMA_RATIO
    return narrow - ndimage.gaussian_filter(grey, wide, mode="nearest", radius=reach)


def best_threshold(truth, points, scores, max_distance_um, voxel_size_um) -> tuple[float, float]:
    """The threshold with the largest F1, and that F1.

    Parameters
    ----------
    truth : (N, 3) array
    points, scores : (M, 3) and (M,) arrays
        Detections in voxels, in any order.
    max_distance_um, voxel_size_um
        As in `voxmill.evaluation.matching.match_points`.

    Returns
    -------
    threshold, f1 : float
        The score of the last detection kept; (inf, 0) without a detection or truth.
    """
    if not len(points) or not len(truth):
        return float("inf"), 0.0
    order = np.argsort(-scores, kind="stable")
    gains = incremental_matching(truth, points[order], max_distance_um, voxel_size_um)
    kept = np.arange(1, len(points) + 1)
    f1 = 2 * np.cumsum(gains >= 0) / (kept + len(truth))
    # A threshold keeps all detections of one score or none.
    sorted_scores = scores[order]
    last_of_score = np.append(sorted_scores[1:] != sorted_scores[:-1], True)
    f1 = np.where(last_of_score, f1, -1)
    best = int(np.argmax(f1))
    return float(sorted_scores[best]), float(f1[best])


def find_cells_oracle(
    volume, truth, settings: DogSettings, voxel_size_um, max_distance_um, threads=1
):
    """The best that the filter can do on this very volume: scale and threshold chosen by its truth.

    An upper bound, not a method: no user has the truth of the volume at hand.

    Parameters
    ----------
    volume : (z, y, x) array or opened volume
    truth : (N, 3) float array
        True cells, voxels.
    settings : DogSettings
        Its scales are tried one by one.
    voxel_size_um, max_distance_um
        As in `voxmill.evaluation.matching.match_points`.
    threads : int
        Blocks worked on at once.

    Returns
    -------
    points, scores : (M, 3) and (M,) float arrays
        Cells at the best scale and threshold.
    choice : dict
        `scale`, `threshold` and `f1`.
    """
    best = None
    for scale in settings.scales:
        points, scores = find_cells_dog(volume, settings, voxel_size_um, scale, threads)
        threshold, f1 = best_threshold(truth, points, scores, max_distance_um, voxel_size_um)
        if best is None or f1 > best[2]["f1"]:
            keep = scores >= threshold
            choice = {"scale": scale, "threshold": threshold, "f1": f1}
            best = points[keep], scores[keep], choice
    return best


def cells_table(points, scores, voxel_size_um):
    """Points and scores as a table with the columns of cells.csv (without a volume: NaN)."""
    import pandas as pd

    size = np.asarray(voxel_size_um, dtype=float)
    order = np.lexsort((points[:, 2], points[:, 1], points[:, 0]))
    points, scores = points[order], scores[order]
    none = np.full(len(points), np.nan)
    numbers = np.column_stack([points, points * size, scores, none])
    table = pd.DataFrame(numbers, columns=list(COLUMNS)[1:])
    table.insert(0, "id", np.arange(1, len(table) + 1))
    return table
