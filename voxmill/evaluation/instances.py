"""Found objects against true ones, voxel by voxel, where both are label volumes.

One pass over the blocks of both volumes counts how many voxels each pair of a true and a found
object shares (a sparse table); all overlaps follow from it, so that neither volume needs to fit the
memory. Counts are whole numbers: the block size changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from voxmill.cells.components import find_components, label_equal
from voxmill.evaluation.assignment import match_pairs
from voxmill.evaluation.metrics import scores_of
from voxmill.geometry import Box
from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.blocks import SerialReader, map_blocks
from voxmill.volumes.protocols import ReadableVolume

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
BLOCK_VOX = 192
MOST_LABEL = np.iinfo(np.uint32).max
# An overlap that equals the threshold in decimals must not depend on rounding.
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Objects:
    """The objects of a label volume.

    Parameters
    ----------
    labels : (K,) int64 array
        In rising order, without 0.
    counts : (K,) int64 array
        Voxels.
    lower, upper : (K, 3) int64 array
        Least and largest voxel, z, y, x.
    """

    labels: np.ndarray
    counts: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    def box(self, row: int) -> Box:
        """Bounding box of an object."""
        return Box(self.lower[row], self.upper[row] + 1)


@dataclass(frozen=True)
class Overlaps:
    """True and found objects, and the voxels that pairs of them share.

    Parameters
    ----------
    truth, found : Objects
    rows, columns : (E,) int64 array
        Rows of `truth` and of `found`: the pairs that share a voxel.
    shared : (E,) int64 array
        Voxels they share.
    """

    truth: Objects
    found: Objects
    rows: np.ndarray
    columns: np.ndarray
    shared: np.ndarray

    @property
    def ratios(self) -> np.ndarray:
        """(E,) intersection over union of each pair."""
        union = self.truth.counts[self.rows] + self.found.counts[self.columns] - self.shared
        return self.shared / union


def whole_labels(window: np.ndarray, name: str) -> np.ndarray:
    """Labels as int64.

    Raises
    ------
    VoxmillError
        If a value is no whole number, or is negative or beyond uint32.
    """
    with np.errstate(invalid="ignore"):  # NaN, which is refused below
        labels = window.astype(np.int64)
    bad = (labels != window) | (labels < 0) | (labels > MOST_LABEL)
    if bad.any():
        raise VoxmillError(
            f"{name}: expected labels as whole numbers from 0 to {MOST_LABEL} (uint32), found the "
            f"value {window[bad][0]}. Number the objects anew, or cut a probability at a threshold."
        )
    return labels


def count_overlaps(
    truth: ReadableVolume,
    found: ReadableVolume,
    block_vox: int = BLOCK_VOX,
    threads: int = 1,
    names: tuple[str, str] = ("truth", "labels"),
) -> Overlaps:
    """Count the voxels that true and found objects share, block by block.

    Parameters
    ----------
    truth, found : ReadableVolume
        Labels, 0 for the background, of the same shape.
    block_vox : int
        Edge of a block, voxels; has no influence on the result.
    threads : int
    names : (2,) str
        Of the volumes, for messages.

    Raises
    ------
    VoxmillError
        If the shapes differ, or a value is no label.
    """
    readers = SerialReader(truth), SerialReader(found)
    shapes = [reader.shape for reader in readers]
    if shapes[0] != shapes[1]:
        raise VoxmillError(
            f"{names[1]}: expected labels of the shape {shapes[0]} of {names[0]}, found {shapes[1]}"
        )

    def work(block: Box) -> tuple[list[tuple[np.ndarray, ...]], np.ndarray, np.ndarray]:
        parts = [
            whole_labels(reader.read_window(*block), name)
            for reader, name in zip(readers, names, strict=True)
        ]
        keys = (parts[0].astype(np.uint64) << np.uint64(32)) | parts[1].astype(np.uint64)
        pairs, shared = np.unique(keys, return_counts=True)
        return [_extents(part, block) for part in parts], pairs, shared

    blocks = Box.from_shape(shapes[0]).blocks(block_vox)
    results = list(map_blocks(work, blocks, threads, "overlaps"))
    objects = [_merged([extents[k] for extents, _, _ in results]) for k in (0, 1)]
    keys, groups = np.unique(np.concatenate([r[1] for r in results]), return_inverse=True)
    shared = np.zeros(len(keys), np.int64)
    np.add.at(shared, groups, np.concatenate([r[2] for r in results]))
    labels = [(keys >> np.uint64(32)).astype(np.int64), (keys & np.uint64(MOST_LABEL)).astype(int)]
    both = (labels[0] > 0) & (labels[1] > 0)
    rows, columns = (
        np.searchsorted(part.labels, of[both]) for part, of in zip(objects, labels, strict=True)
    )
    return Overlaps(objects[0], objects[1], rows, columns, shared[both])


def _extents(labels: np.ndarray, block: Box) -> tuple[np.ndarray, ...]:
    """Labels of a block other than 0, their voxels, and their least and largest coordinates."""
    places = np.argwhere(labels)
    names, groups = np.unique(labels[tuple(places.T)], return_inverse=True)
    lower = np.full((len(names), 3), np.iinfo(np.int64).max)
    upper = np.full((len(names), 3), -1, dtype=np.int64)
    places += np.asarray(block.start)
    np.minimum.at(lower, groups, places)
    np.maximum.at(upper, groups, places)
    return names, np.bincount(groups, minlength=len(names)), lower, upper


def _merged(parts: list[tuple[np.ndarray, ...]]) -> Objects:
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    names, groups = np.unique(columns[0], return_inverse=True)
    counts = np.zeros(len(names), np.int64)
    lower = np.full((len(names), 3), np.iinfo(np.int64).max)
    upper = np.full((len(names), 3), -1, dtype=np.int64)
    np.add.at(counts, groups, columns[1])
    np.minimum.at(lower, groups, columns[2])
    np.maximum.at(upper, groups, columns[3])
    return Objects(names, counts, lower, upper)


def match_objects(overlaps: Overlaps, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Match objects one to one: most pairs first, then the largest sum of overlaps.

    Parameters
    ----------
    overlaps : Overlaps
    threshold : float
        Least intersection over union of a pair; from 0.5 on the matching is unique.

    Returns
    -------
    pairs : (K, 2) int array
        Rows of true and found objects.
    ratios : (K,) float array
        Their intersection over union.
    """
    ratios = overlaps.ratios
    able = ratios >= threshold - _TOLERANCE
    rows, columns, ratios = overlaps.rows[able], overlaps.columns[able], ratios[able]
    n_truth, n_found = len(overlaps.truth.labels), len(overlaps.found.labels)
    pairs = match_pairs(rows, columns, 1 - ratios, 1.0, n_truth, n_found)
    of = dict(zip(zip(rows.tolist(), columns.tolist(), strict=True), ratios, strict=True))
    return pairs, np.array([of[row, column] for row, column in pairs.tolist()])


def scores_at(overlaps: Overlaps, threshold: float) -> dict[str, Any]:
    """Scores of the matching at one threshold.

    Returns
    -------
    dict
        Counts, precision, recall, F1; `average_precision`, TP / (TP + FP + FN) (what instance
        segmentation calls so: Caicedo et al., Nature Methods 16, 2019); `segmentation_quality`, the
        mean overlap of the matched pairs; and `panoptic_quality`, that times F1 (Kirillov et al.,
        CVPR 2019). None where there is nothing to divide by.
    """
    pairs, ratios = match_objects(overlaps, threshold)
    tp = len(pairs)
    fp, fn = len(overlaps.found.labels) - tp, len(overlaps.truth.labels) - tp
    scores = {"threshold": threshold} | scores_of(tp, fp, fn)
    total = tp + fp + fn
    quality = float(ratios.mean()) if tp else None
    scores["average_precision"] = tp / total if total else None
    scores["segmentation_quality"] = quality
    scores["panoptic_quality"] = (quality or 0.0) * scores["f1"] if total else None
    return scores


def splits_and_merges(overlaps: Overlaps) -> dict[str, int]:
    """How many objects were cut in pieces or joined.

    Returns
    -------
    dict
        `split_objects`: true objects in each of which two or more found objects lie with more than
        half of their voxels; `merged_objects`: found objects that hold more than half of the voxels
        of two or more true ones.
    """
    shared = 2 * overlaps.shared
    in_truth = shared > overlaps.found.counts[overlaps.columns]
    in_found = shared > overlaps.truth.counts[overlaps.rows]
    return {
        "split_objects": int((np.bincount(overlaps.rows[in_truth]) > 1).sum()),
        "merged_objects": int((np.bincount(overlaps.columns[in_found]) > 1).sum()),
    }


def labels_in_pieces(
    volume: ReadableVolume, name: str, block_vox: int = BLOCK_VOX // 2, threads: int = 1
) -> dict[int, int]:
    """Labels that are in more than one piece (26-connected), with their numbers of pieces."""
    reader = SerialReader(volume)

    def read(box: Box) -> tuple[np.ndarray, np.ndarray]:
        window = whole_labels(reader.read_window(*box), name)
        return window, window

    shape: Sequence[int] = reader.shape
    pieces = find_components(read, shape, block_vox, threads, "pieces of labels", label_equal)
    names, counts = np.unique(pieces.peaks, return_counts=True)
    return {int(a): int(n) for a, n in zip(names, counts, strict=True) if n > 1}
