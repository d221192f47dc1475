"""Mistakes of a half-trained network in its own training volumes, to draw patches on.

Vessel walls, edges of the tissue and debris are rare, so that patches drawn anywhere hardly show
them; what the network takes for a cell is the place to learn that it is none (hard negatives; Sung
& Poggio, "Example-based learning for view-based human face detection", IEEE Trans. PAMI 20(1),
1998). Cells that it misses are the other half.
"""

from typing import cast

import numpy as np

from voxmill.config.training import TrainingSettings
from voxmill.evaluation.matching import match_points
from voxmill.geometry import Box
from voxmill.networks.heads import cell_map
from voxmill.networks.msdnet import MSDNet
from voxmill.training.sources import Source, points_in
from voxmill.training.validation import find_points, grown, predict_box

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Of which the one with the best F1 in the training volumes decides what a mistake is."""
BLOCK_VOX = 128
MOST_BLOCKS = 27
"""Blocks of a source that are searched; drawn at random where it has more."""


def find_mistakes(
    network: MSDNet,
    sources: list[Source],
    settings: TrainingSettings,
    device: str,
    threads: int,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Find false finds and missed cells in the training volumes.

    Parameters
    ----------
    network : MSDNet
    sources : list of Source
        Those that train.
    settings : TrainingSettings
    device : str
        "cpu" or "cuda".
    threads : int
    rng : numpy.random.Generator
        Draws the blocks.

    Returns
    -------
    list of (K, 3) float arrays
        Of each source, places in absolute voxels.
    """
    found: list[list[list[np.ndarray]]] = []
    counts = np.zeros((len(THRESHOLDS), 2), int)
    cells = 0
    for source in sources:
        blocks = source.region.blocks(BLOCK_VOX)
        if len(blocks) > MOST_BLOCKS:
            chosen = np.sort(rng.choice(len(blocks), MOST_BLOCKS, replace=False))
            blocks = [blocks[i] for i in chosen]
        places: list[list[np.ndarray]] = [[] for _ in THRESHOLDS]
        for block in blocks:
            outer = grown(block, source, settings)
            maps = predict_box(network, source, outer, settings.normalisation, device, threads)
            found_in = cell_map(settings.output_names, maps)
            cells += len(_kept(source.points, source, block))
            for i, threshold in enumerate(THRESHOLDS):
                false, missed = _mistakes(found_in, source, block, outer, settings, threshold)
                places[i] += [false, missed]
                counts[i] += (len(false), len(missed))
        found.append(places)
    # F1 = 2 TP / (2 TP + mistakes), and TP = cells - missed.
    true = cells - counts[:, 1]
    best = int(np.argmax(2 * true / np.maximum(2 * true + counts.sum(axis=1), 1)))
    return [np.concatenate([np.zeros((0, 3)), *places[best]]) for places in found]


def _mistakes(
    probability: np.ndarray,
    source: Source,
    block: Box,
    outer: Box,
    settings: TrainingSettings,
    threshold: float,
) -> tuple[np.ndarray, np.ndarray]:
    """False finds and missed cells in a block, (N, 3) voxels each."""
    size = source.voxel_size_um
    points, _ = find_points(probability, settings, size, threshold, outer.start)
    truth = points_in(source.points, outer)
    pairs = match_points(truth, points, cast(float, settings.max_distance_um), size)
    false = np.delete(points, pairs[:, 1], axis=0)
    missed = np.delete(truth, pairs[:, 0], axis=0)
    return _kept(false, source, block), _kept(missed, source, block)


def _kept(points: np.ndarray, source: Source, block: Box) -> np.ndarray:
    """The points in a block that are not in the validation box."""
    points = points_in(points, block)
    if source.validation is None:
        return points
    return points[~source.validation.contains(points)]
