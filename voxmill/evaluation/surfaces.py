"""Distances between the surfaces of matched objects, pair by pair, and quality by size."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from voxmill.evaluation.instances import Overlaps, match_objects
from voxmill.geometry import Box, VoxelSize
from voxmill.volumes.blocks import SerialReader
from voxmill.volumes.protocols import ReadableVolume

_FACES = ndimage.generate_binary_structure(3, 1)
SIZE_CLASSES = 3


@dataclass(frozen=True)
class PairTable:
    """Matched pairs, a row each.

    Parameters
    ----------
    rows, columns : (K,) int array
        Rows of the true and the found objects.
    ratios : (K,) float array
        Intersection over union.
    hausdorff95_um : (K,) float array
        95th percentile of the distances from each surface voxel to the other surface; the larger
        of both directions.
    mean_surface_um : (K,) float array
        Mean of these distances, over both directions.
    """

    rows: np.ndarray
    columns: np.ndarray
    ratios: np.ndarray
    hausdorff95_um: np.ndarray
    mean_surface_um: np.ndarray


def surface_points(mask: np.ndarray) -> np.ndarray:
    """Voxels (K, 3) of a mask that have one of their six neighbours outside of it.

    Parameters
    ----------
    mask : (z, y, x) bool array
        What lies beyond the array is outside.
    """
    return np.argwhere(mask & ~ndimage.binary_erosion(mask, _FACES, border_value=0))


def surface_distances(truth: np.ndarray, found: np.ndarray, size: VoxelSize) -> tuple[float, float]:
    """95th percentile of the Hausdorff distance, and mean distance of two surfaces, micrometres.

    Parameters
    ----------
    truth, found : (z, y, x) bool array
        Two masks with at least one voxel each.
    size : VoxelSize

    Examples
    --------
    >>> one, two = np.zeros((2, 1, 1, 9), bool)
    >>> one[..., 2], two[..., 5] = True, True
    >>> surface_distances(one, two, VoxelSize(1, 1, 2))
    (6.0, 6.0)
    """
    points = [size.to_um(surface_points(mask)) for mask in (truth, found)]
    trees = [KDTree(each) for each in points]
    there, _ = trees[1].query(points[0])
    back, _ = trees[0].query(points[1])
    farthest = max(float(np.percentile(there, 95)), float(np.percentile(back, 95)))
    return farthest, float(np.concatenate([there, back]).mean())


def compare_pairs(
    overlaps: Overlaps,
    truth: ReadableVolume,
    found: ReadableVolume,
    size: VoxelSize,
    threshold: float = 0.5,
) -> PairTable:
    """Compare the surfaces of all pairs that are matched at a threshold.

    Each pair is read in the box around both, so that memory depends on the largest object alone.
    """
    pairs, ratios = match_objects(overlaps, threshold)
    readers = SerialReader(truth), SerialReader(found)
    distances = np.zeros((len(pairs), 2))
    for k, (row, column) in enumerate(pairs.tolist()):
        one, two = overlaps.truth.box(row), overlaps.found.box(column)
        box = Box(
            np.minimum(one.start, two.start).tolist(), np.maximum(one.stop, two.stop).tolist()
        )
        masks = (
            readers[0].read_window(*box) == overlaps.truth.labels[row],
            readers[1].read_window(*box) == overlaps.found.labels[column],
        )
        distances[k] = surface_distances(*masks, size)
    return PairTable(pairs[:, 0], pairs[:, 1], ratios, distances[:, 0], distances[:, 1])


def quality_by_size(
    overlaps: Overlaps, pairs: PairTable, size: VoxelSize, classes: int = SIZE_CLASSES
) -> list[dict[str, Any]]:
    """Quality of true objects by their volume, in classes of equal number.

    Returns
    -------
    list of dict
        From small to large: the class's volumes, its true objects, the share of them that is
        matched, and of the matched the mean overlap, the median of the volumes' relative error
        (signed), and the mean distances of the surfaces.
    """
    volumes = overlaps.truth.counts * size.volume_um3
    order = np.argsort(overlaps.truth.counts, kind="stable")
    rows = []
    for members in np.array_split(order, classes):
        if not len(members):
            continue
        chosen = np.isin(pairs.rows, members)
        true = overlaps.truth.counts[pairs.rows[chosen]]
        found = overlaps.found.counts[pairs.columns[chosen]]
        rows.append(
            {
                "from_um3": float(volumes[members].min()),
                "to_um3": float(volumes[members].max()),
                "true_objects": len(members),
                "matched_share": float(chosen.sum() / len(members)),
                "mean_overlap": _mean(pairs.ratios[chosen]),
                "volume_error": float(np.median(found / true - 1)) if len(true) else None,
                "hausdorff95_um": _mean(pairs.hausdorff95_um[chosen]),
                "mean_surface_um": _mean(pairs.mean_surface_um[chosen]),
            }
        )
    return rows


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
