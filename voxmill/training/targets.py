"""Targets made of centroids, and the weight of cells in the loss."""

import numpy as np
from numpy.typing import ArrayLike

# A Gaussian counts as 0 beyond this many standard deviations.
REACH = 3.5
# Of a cell that was only clicked, cell diameters: surely mask, and surely none of it.
CORE, OUTSIDE = 0.25, 0.6


def centroid_target(
    points: ArrayLike,
    start: ArrayLike,
    shape: tuple[int, int, int],
    voxel_size_um: ArrayLike,
    sigma_um: float,
) -> np.ndarray:
    """Draw Gaussians around centroids in a box of a volume; where they overlap, the larger counts.

    Parameters
    ----------
    points : (N, 3) float array
        Centroids in absolute voxels, including those outside the box.
    start : (3,) int
        First voxel of the box.
    shape : (3,) int
        Shape of the box.
    voxel_size_um : (3,) float
        Edge lengths of a voxel, z, y, x.
    sigma_um : float
        Standard deviation in micrometres, the same along each axis.

    Returns
    -------
    (z, y, x) float32 array
        1 at a centroid that lies on a voxel's centre.

    Examples
    --------
    >>> centroid_target(np.array([[0, 0, 1.0]]), (0, 0, 0), (1, 1, 3), (1, 1, 1), 1.0).round(2)
    array([[[0.61, 1.  , 0.61]]], dtype=float32)
    """
    target = np.zeros(shape, np.float32)
    size = np.asarray(voxel_size_um, dtype=float)
    local = np.asarray(points, dtype=float).reshape(-1, 3) - np.asarray(start)
    reach = REACH * sigma_um / size
    near = ((local > -reach - 1) & (local < np.asarray(shape) + reach)).all(axis=1)
    for point in local[near]:
        low = np.maximum(np.ceil(point - reach), 0).astype(int)
        high = np.minimum(np.floor(point + reach) + 1, shape).astype(int)
        if (low >= high).any():
            continue
        z, y, x = (
            np.exp(-0.5 * ((np.arange(a, b) - p) * s / sigma_um) ** 2).astype(np.float32)
            for a, b, p, s in zip(low, high, point, size, strict=True)
        )
        box = target[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
        np.maximum(box, z[:, None, None] * y[:, None] * x, out=box)
    return target


def ball_target(
    points: ArrayLike,
    start: ArrayLike,
    shape: tuple[int, int, int],
    voxel_size_um: ArrayLike,
    diameter_um: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Mask of cells of which only the centroids are known, and where it is known.

    A ball around each centroid is mask. Where the cell ends is not known: the shell around the ball
    says nothing, so that a network keeps what it has learnt of outlines.

    Parameters
    ----------
    points, start, shape, voxel_size_um
        As in `centroid_target`.
    diameter_um : float
        Typical diameter of a cell.

    Returns
    -------
    mask, known : (z, y, x) float32 arrays
        0 or 1.

    Examples
    --------
    >>> mask, known = ball_target([[0, 0, 0]], (0, 0, 0), (1, 1, 5), (1, 1, 1), 4.0)
    >>> mask.tolist(), known.tolist()
    ([[[1.0, 1.0, 0.0, 0.0, 0.0]]], [[[1.0, 1.0, 0.0, 1.0, 1.0]]])
    """
    near = centroid_target(points, start, shape, voxel_size_um, CORE * diameter_um)
    # Rounding must not lose a voxel at exactly the radius.
    mask = near >= np.exp(-0.5) - 1e-4
    outside = near < np.exp(-0.5 * (OUTSIDE / CORE) ** 2)
    return mask.astype(np.float32), (mask | outside).astype(np.float32)


def balanced_weight(number: int, volume_um3: float, sigma_um: float) -> float:
    """Return the weight with which all cells together count a third as much as the background.

    Cells fill far less than a percent of a volume. Without a weight, "no cell anywhere" is nearly
    perfect, and the network learns nothing else in the first thousand steps.

    Parameters
    ----------
    number : int
        Number of cells in the volume.
    volume_um3 : float
    sigma_um : float
        Standard deviation of the target's Gaussians.

    Returns
    -------
    float
        From 1 to 500.
    """
    filled = number * (2 * np.pi) ** 1.5 * sigma_um**3 / volume_um3
    return float(np.clip(1 / (3 * max(filled, 1e-9)), 1.0, 500.0))
