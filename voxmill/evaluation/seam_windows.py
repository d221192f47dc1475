"""Windows that straddle seams between tiles, and what differs in them: cells and labels."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from voxmill.cells.find_cells import cells_of_volume
from voxmill.config.cells import CellSettings
from voxmill.evaluation.instances import count_overlaps, splits_and_merges
from voxmill.evaluation.matching import match_points
from voxmill.geometry import Box
from voxmill.volumes.blocks import ArrayVolume

Labeller = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Prediction, places (N, 3) and ids (N,) -> labels of a core."""


def seam_starts(
    shape: Sequence[int],
    tile_shape: Sequence[int],
    size: Sequence[int],
    number: int,
    seed: int,
) -> np.ndarray:
    """Corners of boxes that are centred on faces, edges and corners between tiles.

    Parameters
    ----------
    shape, tile_shape, size : (3,) int
        The volume, the largest core, and the boxes.
    number : int
    seed : int

    Returns
    -------
    (N, 3) int array
        Every box straddles at least one seam; empty where the volume is a single tile.
    """
    rng = np.random.default_rng(seed)
    seams = [np.arange(t, n, t) for n, t in zip(shape, tile_shape, strict=True)]
    cut_axes = [axis for axis in range(3) if len(seams[axis])]
    starts = []
    for index in range(number if cut_axes else 0):
        start = [int(rng.integers(0, n - s + 1)) for n, s in zip(shape, size, strict=True)]
        # Always on a face; along each other axis on a seam half of the time: edges and corners.
        first = cut_axes[index % len(cut_axes)]
        for axis in cut_axes:
            if axis == first or rng.random() < 0.5:
                centred = int(rng.choice(seams[axis])) - size[axis] // 2
                start[axis] = int(np.clip(centred, 0, shape[axis] - size[axis]))
        starts.append(start)
    return np.array(starts, dtype=int).reshape(-1, 3)


def compare_cells(
    reference: np.ndarray,
    stitched: np.ndarray,
    settings: CellSettings,
    voxel_size_um: Iterable[float],
    core: Box,
    label: Labeller | None = None,
) -> dict:
    """Cells of two predictions of one box that have no partner in the other.

    Parameters
    ----------
    reference, stitched : (z, y, x) float32 array
        Probabilities.
    settings : CellSettings
    voxel_size_um : (3,) float
    core : Box
        Only cells within it are compared; the rest of the arrays are their surroundings.
    label : callable, optional
        Labels of the core from a prediction, places of cells and their ids: then they are compared
        too, partners having one id.

    Returns
    -------
    dict
        `cells` of the reference, and those `gained` and `lost` in the stitched prediction, (N, 3)
        voxels of the box; with `label` also what `compare_labels` gives.
    """
    tables = []
    for probability in (reference, stitched):
        table = cells_of_volume(ArrayVolume(probability), settings, voxel_size_um)
        tables.append(table[["z_vox", "y_vox", "x_vox"]].to_numpy())
    pairs = match_points(tables[0], tables[1], settings.min_distance_um / 2, voxel_size_um)
    within = [core.contains(points) for points in tables]
    alone = [np.ones(len(points), bool) for points in tables]
    for column, mask in enumerate(alone):
        mask[pairs[:, column]] = False
    lost, gained = (
        points[keep & mask].reshape(-1, 3).tolist()
        for points, keep, mask in zip(tables, within, alone, strict=True)
    )
    found = {"cells": int(within[0].sum()), "gained": gained, "lost": lost}
    if label is None:
        return found
    ids = [np.arange(1, len(points) + 1) for points in tables]
    ids[1] += len(ids[0])
    ids[1][pairs[:, 1]] = ids[0][pairs[:, 0]]
    labels = map(label, (reference, stitched), tables, ids)
    return found | compare_labels(*labels)


LABEL_COUNTS = (
    "labels", "labels_differ", "label_voxels", "label_voxels_differ", "labels_split",
    "labels_merged",
)  # fmt: skip


def compare_labels(reference: np.ndarray, found: np.ndarray) -> dict[str, int]:
    """Labels of one box in two arrays (z, y, x) whose ids mean the same cells.

    Returns
    -------
    dict
        `LABEL_COUNTS`: labels and their voxels in either array, those that differ, and how many
        labels of the reference are split or merged in the other array (see
        `voxmill.evaluation.instances.splits_and_merges`).
    """
    differ = reference != found
    names = np.union1d(reference, found)
    changed = np.union1d(reference[differ], found[differ])
    objects = splits_and_merges(count_overlaps(ArrayVolume(reference), ArrayVolume(found)))
    counts = (
        int(np.count_nonzero(names)),
        int(np.count_nonzero(changed)),
        int(np.count_nonzero((reference > 0) | (found > 0))),
        int(np.count_nonzero(differ)),
        objects["split_objects"],
        objects["merged_objects"],
    )
    return dict(zip(LABEL_COUNTS, counts, strict=True))


def sum_labels(rows: Sequence[dict]) -> dict[str, int]:
    """The counts of all windows together; nothing where labels were not compared."""
    if any(name not in row for row in rows for name in LABEL_COUNTS):
        return {}
    return {name: sum(row[name] for row in rows) for name in LABEL_COUNTS}
