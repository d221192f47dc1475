"""Local maxima of a probability volume, block by block, the same for any block size.

A voxel is a maximum when

1. its value is at least the threshold,
2. no voxel within the ball around it (radius `min_distance_um`) has a larger value, and
3. no voxel of the ball that meets 1 and 2 with the same value comes before it in z, y, x order
   (which decides on plateaus and saturated probabilities).

Whether a voxel is a maximum depends on the values within two ball radii: 3 asks whether a voxel
one radius away meets 2, which looks one radius farther. A block is therefore read with a margin of
two radii (and that of the smoothing), and keeps the maxima whose voxel lies in the block itself.
Two maxima are always farther apart than the radius: of two in one ball, 3 drops the later.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from voxmill.geometry import Box, Triple, VoxelSize

# Candidates compared with their balls at once: bounds the memory of a block full of plateaus.
CHUNK = 4096
# Values are added up as whole numbers of this unit: no sum depends on the order of its terms.
VALUE_STEPS = 2.0**30


@dataclass(frozen=True)
class Ball:
    """Voxels within a distance of a voxel, as an ellipsoid in voxels.

    Parameters
    ----------
    offsets : (B, 3) int array
        Offsets z, y, x from the centre, the centre included, in z, y, x order.
    reach : (3,) int
        Largest offset along z, y, x.
    """

    offsets: np.ndarray
    reach: Triple


def ball(radius_um: float, voxel_size_um: Iterable[float], at_least_vox: int = 0) -> Ball:
    """Ball of a radius in micrometres.

    Parameters
    ----------
    radius_um : float
    voxel_size_um : (3,) float
        Edge lengths of a voxel, z, y, x.
    at_least_vox : int
        Least semi-axis in voxels; with 1 the six face neighbours always belong to the ball, however
        coarse the voxels are.
    """
    axes = np.maximum(radius_um / VoxelSize.of(voxel_size_um).array, at_least_vox)
    z, y, x = (int(r) for r in np.floor(axes * (1 + 1e-9)))
    reach = (z, y, x)
    offsets = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), axis=-1)
    offsets = offsets.reshape(-1, 3)
    inside = ((offsets / np.maximum(axes, 1e-300)) ** 2).sum(axis=1) <= 1 + 1e-9
    return Ball(offsets[inside], reach)


def local_maxima(
    values: np.ndarray,
    block: Box,
    window_start: Sequence[int],
    threshold: float,
    apart: Ball,
    around: Ball,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maxima of one block, refined to fractions of a voxel.

    The refined place is the top of a parabola fitted to the ball `around` the maximum. (A mean
    weighted with the probability would be drawn to the middle of the ball it is taken over.)

    Parameters
    ----------
    values : (·, ·, ·) float array
        The block's window: the block grown by `margin(apart, around)`, clipped at the volume.
    block : Box
        Absolute voxels.
    window_start : (3,) int
        The window's first voxel, absolute.
    threshold : float
        Least value of a maximum.
    apart, around : Ball
        Of the least distance of two maxima, and of the refinement.

    Returns
    -------
    places : (K, 3) float array
        Absolute voxels z, y, x.
    scores : (K,) float array
        Value at the maximum.
    counts : (K,) int array
        Voxels at or above the threshold in the ball `apart`.
    """
    pad = np.maximum(apart.reach, around.reach)
    padded = np.pad(values, [(p, p) for p in pad], constant_values=-np.inf)
    flat, strides = (
        padded.ravel(),
        np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1]),
    )
    in_window = np.asarray(window_start) - pad

    near = np.argwhere(_box_maxima(values, threshold, apart)) + window_start
    near = near[block.grow(apart.reach).contains(near)]
    index = (near - in_window) @ strides
    steps = apart.offsets @ strides
    is_top = np.zeros(len(index), dtype=bool)
    for part in _chunks(len(index)):
        is_top[part] = flat[index[part, None] + steps].max(axis=1) <= flat[index[part]]
    near, index = near[is_top], index[is_top]

    candidate = np.zeros(len(flat), dtype=bool)
    candidate[index] = True
    own = block.contains(near)
    near, index = near[own], index[own]
    # Candidates in one another's balls are equal, each being the other's largest voxel.
    earlier = steps[: len(steps) // 2]
    first = np.ones(len(index), dtype=bool)
    for part in _chunks(len(index)):
        first[part] = ~candidate[index[part, None] + earlier].any(axis=1)
    near, index = near[first], index[first]

    places = near + _refinement(padded, near - in_window, pad, around)
    counts = np.zeros(len(index), dtype=np.int64)
    for part in _chunks(len(index)):
        counts[part] = (flat[index[part, None] + steps] >= threshold).sum(axis=1)
    return places, flat[index].astype(np.float64), counts


def margin(apart: Ball, around: Ball) -> Triple:
    """Voxels beyond a block that its maxima depend on, z, y, x."""
    z, y, x = (max(2 * a, b) for a, b in zip(apart.reach, around.reach, strict=True))
    return z, y, x


def _box_maxima(values: np.ndarray, threshold: float, apart: Ball) -> np.ndarray:
    """Cheap superset of the maxima: the largest value of the widest box that fits the ball."""
    half = [int(r / np.sqrt(3)) for r in apart.reach]
    corner_inside = (apart.offsets == half).all(axis=1).any()
    size = [2 * h + 1 for h in half] if corner_inside else [1, 1, 1]
    # "nearest" repeats border voxels, which lie in the box anyway.
    largest = ndimage.maximum_filter(values, size=size, mode="nearest")
    return (values >= threshold) & (values >= largest)


def _refinement(
    padded: np.ndarray, centres: np.ndarray, pad: np.ndarray, around: Ball
) -> np.ndarray:
    """Offset (K, 3) of the top of the parabola fitted to the ball around each maximum, voxels.

    Least squares for a + g·x - b·x² (b along each axis) over the ball's voxels. As the ball is
    symmetric, g is the first moment over the sum of x²; a and b follow from the moments of 1 and
    x². Moments are sums of whole numbers. Along an axis on which the values don't curve down the
    offset is 0, and no top is farther away than the ball reaches.
    """
    offsets = around.offsets
    basis = np.column_stack([np.ones(len(offsets), dtype=np.int64), offsets**2])
    # A ball without extent along an axis leaves nothing to fit there.
    inverse = np.linalg.pinv((basis.T @ basis).astype(float))
    spread = np.maximum((offsets**2).sum(axis=0), 1)
    shifts = np.zeros((len(centres), 3))
    for part in _chunks(len(centres)):
        values = _ball_values(padded, centres[part], pad, offsets)
        whole = np.rint(values.astype(np.float64) * VALUE_STEPS).astype(np.int64)
        even = np.stack([(whole * term).sum(axis=1) for term in basis.T])
        for axis in range(3):
            slope = (whole * offsets[:, axis]).sum(axis=1) / spread[axis]
            row = inverse[axis + 1]
            curvature = -(row[0] * even[0] + row[1] * even[1] + row[2] * even[2] + row[3] * even[3])
            top = slope / np.where(curvature > 0, 2 * curvature, np.inf)
            shifts[part, axis] = np.clip(top, -around.reach[axis], around.reach[axis])
    return shifts


def _ball_values(
    padded: np.ndarray, centres: np.ndarray, pad: np.ndarray, offsets: np.ndarray
) -> np.ndarray:
    """Values (K, B) in balls; a voxel outside of the volume is mirrored at the ball's centre.

    It is mirrored only along the axis that leaves the volume: a maximum in the volume's first or
    last plane stays in it, and its shift along the other axes is what it would be elsewhere.
    """
    low, high = pad, np.asarray(padded.shape) - pad
    voxels = centres[:, None] + offsets
    for instead in (centres[:, None] - offsets, centres[:, None]):
        voxels = np.where((voxels < low) | (voxels >= high), instead, voxels)
    return padded[tuple(np.moveaxis(voxels, -1, 0))]


def _chunks(n: int) -> list[slice]:
    return [slice(k, k + CHUNK) for k in range(0, n, CHUNK)]
