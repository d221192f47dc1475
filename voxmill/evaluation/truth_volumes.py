"""Ground truth in volumes: single voxels, labels or masks.

Volumes are read block by block and never as a whole. Points are in the frame of the volume that
the ground truth belongs to, whatever the orientation of its file.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from voxmill.cells.components import Regions, find_components, find_labels, label_equal
from voxmill.evaluation.point_columns import TruthReading
from voxmill.geometry import Box, VoxelSize
from voxmill.runtime.errors import VoxmillError
from voxmill.volumes import LABEL_DTYPES, Windows, open_volume, read_header
from voxmill.volumes.blocks import SerialReader, map_blocks
from voxmill.volumes.orientation import Placement, place

logger = logging.getLogger(__name__)

BLOCK_VOX = 192
_SURELY_MASKS = (1, 255, 65535)
MAX_PIECES = 1_000_000
"""Pieces, beyond 20 a label, at which a volume is taken for an image; bounds the memory."""


@contextmanager
def _opened(
    path: str | Path, frame: Box, reading: TruthReading
) -> Iterator[tuple[Windows, Placement]]:
    """A ground truth volume and how it lies in its volume, after checking its shape."""
    header = read_header(path, dtypes=LABEL_DTYPES)
    placement = place(header, reading.volume)
    if placement.shape(header.shape) != frame.shape:
        hint = "Is it the ground truth of another volume, or cropped or resampled?"
        if tuple(header.shape)[::-1] == frame.shape:
            hint = "Its axes are in the order x, y, z: transpose it."
        raise VoxmillError(
            f"{path}: expected a ground truth of the volume's shape {frame.shape} (z, y, x), found "
            f"{tuple(header.shape)}. {hint}"
        )
    with open_volume(header) as opened:
        yield opened, placement


def _sorted(points: np.ndarray, placement: Placement) -> np.ndarray:
    """Points in the frame of the volume, by z, then y, then x."""
    if not placement.is_identity:
        points = placement.apply(points)
    return points[np.lexsort(points.T[::-1])]


def read_voxels(path: str | Path, frame: Box, size: VoxelSize, reading: TruthReading) -> np.ndarray:
    """Voxels equal to 1."""
    with _opened(path, frame, reading) as (volume, placement):
        reader = SerialReader(volume)

        def work(block: Box) -> tuple[np.ndarray, float]:
            window = reader.read_window(*block)
            return np.argwhere(window == 1) + np.asarray(block.start, dtype=float), window.max()

        blocks = Box.from_shape(reader.shape).blocks(BLOCK_VOX)
        parts = list(map_blocks(work, blocks, 1, "ground truth"))
    points = np.concatenate([found for found, _ in parts])
    largest = max(value for _, value in parts)
    if not len(points) and largest > 0:
        raise VoxmillError(
            f"{path}: expected voxels equal to 1 at the centroids, found none (the largest value "
            f"is {largest}). If its nonzero voxels are cells, its kind is mask or labels."
        )
    return _sorted(points, placement)


def read_labels(path: str | Path, frame: Box, size: VoxelSize, reading: TruthReading) -> np.ndarray:
    """Centroid of every label."""
    with _opened(path, frame, reading) as (volume, placement):
        try:
            labels = find_labels(volume, BLOCK_VOX, description="ground truth")
        except VoxmillError as error:
            raise VoxmillError(
                f"{path}: {error}. If it is a mask or a probability, cut it at a threshold and set "
                "`kind: mask`."
            ) from None
        _check_pieces(path, labels, _find_pieces(path, volume, len(labels.counts)))
        _warn_of_background(path, labels, frame)
    return _sorted(labels.centroids, placement)


def _find_pieces(path: str | Path, volume: Windows, n_labels: int) -> Regions:
    """26-connected components of each label; the peak of a component is its label."""
    reader = SerialReader(volume)
    n_pieces = 0

    def read(box: Box) -> tuple[np.ndarray, np.ndarray]:
        window = reader.read_window(*box).astype(np.int64)
        return window, window

    def label(window: np.ndarray) -> tuple[np.ndarray, int]:
        nonlocal n_pieces
        pieces, n_here = label_equal(window)
        n_pieces += n_here
        if n_pieces > 20 * n_labels + MAX_PIECES:
            raise VoxmillError(
                f"{path}: expected labels with one number for each cell, found {n_labels} numbers "
                f"in more than {n_pieces} pieces. Is it an image, or a mask?"
            )
        return pieces, n_here

    # Where every voxel is a piece, a block needs many times its size.
    block = max(1, BLOCK_VOX // 2)
    return find_components(read, reader.shape, block, description="pieces of labels", label=label)


def _check_pieces(path: str | Path, labels: Regions, pieces: Regions) -> None:
    """Refuse labels that number no cells, as in a mask; warn of single labels in pieces."""
    n_labels, n_pieces = len(labels.counts), len(pieces.counts)
    if n_pieces == n_labels:
        return
    names, counts = np.unique(pieces.peaks, return_counts=True)
    alone = n_labels == 1 and int(names[0]) in _SURELY_MASKS
    if alone or n_pieces > 2 * n_labels:
        found = f"{n_labels} label{'s' if n_labels > 1 else ''} (such as {names[-1]:.0f})"
        raise VoxmillError(
            f"{path}: expected labels with one number for each cell, found {found} in {n_pieces} "
            "separate pieces. If every piece is a cell, set `kind: mask`; if only one of the "
            "numbers stands for cells, save a mask of it."
        )
    broken = counts > 1
    logger.warning(
        "%s: %d of %d labels are in several pieces (label %.0f is in %d), each read as one cell; "
        "if the pieces are cells, set `kind: mask`", path, broken.sum(), n_labels,
        names[counts.argmax()], counts.max(),
    )  # fmt: skip


def _warn_of_background(path: str | Path, regions: Regions, frame: Box) -> None:
    largest = int(regions.counts.max(initial=0))
    if 2 * largest > frame.size:
        logger.warning(
            "%s: one cell fills %.0f %% of the volume: the background must be 0; is the mask "
            "inverted, or the background labelled?", path, 100 * largest / frame.size,
        )  # fmt: skip


def read_mask(path: str | Path, frame: Box, size: VoxelSize, reading: TruthReading) -> np.ndarray:
    """Centroid of every 26-connected component of the nonzero voxels."""
    touching = 0
    with _opened(path, frame, reading) as (volume, placement):
        reader = SerialReader(volume)

        def read(box: Box) -> tuple[np.ndarray, None]:
            nonlocal touching
            window = reader.read_window(*box)
            _check_mask(path, window)
            touching += _count_touching(window)
            return window != 0, None

        regions = find_components(read, reader.shape, BLOCK_VOX, description="ground truth")
    if touching:
        logger.warning(
            "%s: voxels of different numbers touch, and are read as one cell; if the numbers are "
            "those of cells, set `kind: labels`", path,
        )  # fmt: skip
    _warn_of_background(path, regions, frame)
    return _sorted(regions.centroids, placement)


def _check_mask(path: str | Path, window: np.ndarray) -> None:
    if window.dtype.kind not in "fi":
        return
    bad = window[~(window >= 0) | (window != np.floor(window))]
    if bad.size:
        raise VoxmillError(
            f"{path}: expected a mask of whole numbers from 0, found the value {bad[0]}. Cut a "
            "probability at a threshold; replace NaN and negative numbers by 0."
        )


def _count_touching(window: np.ndarray) -> int:
    """Pairs of neighbours along an axis that are both nonzero and differ."""
    pairs = 0
    for axis in range(3):
        low, high = (np.moveaxis(window, axis, 0)[part] for part in (slice(-1), slice(1, None)))
        pairs += int(np.count_nonzero((low != high) & (low != 0) & (high != 0)))
    return pairs
