"""F1 on held-out data, through the cell finder that the workflow uses."""

import numpy as np

from voxmill.blocks import ArrayVolume, block_list
from voxmill.cells import CellSettings, cells_of_volume
from voxmill.engine.backends import forward
from voxmill.matching import incremental_matching
from voxmill.statistics import normalise
from voxmill.tiling import grow, inside
from voxmill.training.settings import TrainingSettings
from voxmill.training.sources import Source, points_in

# Candidates below this probability are no cells at any sensible threshold.
LEAST_SCORE = 0.02
BLOCK_VOX = 160
# Context around a block; beyond it a validation score changes by far less than from cell to cell.
HALO_VOX = 24


def predict_box(network, source: Source, box, normalisation: dict, device: str, threads: int):
    """Probabilities (outputs, z, y, x) of a box, with the context around it."""
    start, stop = np.array(box)
    outputs = network.settings.outputs
    result = np.empty((outputs, *(stop - start)), np.float32)
    for a, b in block_list(stop - start, BLOCK_VOX):
        a, b = start + a, start + b
        outer = grow(a, b, (HALO_VOX,) * 3, source.volume.shape)
        grey = normalise(source.volume.read_window(*outer), source.statistics, normalisation)
        values = forward(network, grey[None], "auto", device, "float32", threads)
        core = tuple(slice(p, q) for p, q in zip(a - start, b - start, strict=True))
        result[(slice(None), *core)] = values[(slice(None), *inside(a, b, outer[0]))]
    return result


def find_candidates(probability, settings: TrainingSettings, voxel_size_um, origin=(0, 0, 0)):
    """Cells at a very low threshold: points in absolute voxels, and their scores."""
    finder = CellSettings.from_dict({**settings.finder, "threshold": LEAST_SCORE})
    table = cells_of_volume(ArrayVolume(probability), finder, voxel_size_um)
    return table[["z_vox", "y_vox", "x_vox"]].to_numpy() + origin, table["score"].to_numpy()


def validate(network, sources: list[Source], settings: TrainingSettings, device, threads) -> dict:
    """F1 of all validation boxes together, at the threshold that is best for them together.

    Parameters
    ----------
    network : torch module
    sources : list of Source
        Those with a validation box are used.
    settings : TrainingSettings
    device : str
    threads : int

    Returns
    -------
    dict
        `threshold`, `f1`, `precision`, `recall`, and `volumes`: F1 of each at that threshold.
    """
    runs = []
    for source in (s for s in sources if s.validation):
        probability = predict_box(
            network, source, source.validation, settings.normalisation, device, threads
        )[0]
        truth = points_in(source.points, source.validation)
        found, scores = find_candidates(
            probability, settings, source.voxel_size_um, source.validation[0]
        )
        order = np.argsort(-scores, kind="stable")
        gains = incremental_matching(
            truth, found[order], settings.max_distance_um, source.voxel_size_um
        )
        runs.append((source.name, len(truth), scores[order], gains >= 0))
    return summarise(runs)


def summarise(runs: list[tuple[str, int, np.ndarray, np.ndarray]]) -> dict:
    """Best common threshold of several volumes.

    Parameters
    ----------
    runs : list of (name, true cells, scores, gained)
        Scores in descending order, and whether each detection raised the number of pairs.

    Returns
    -------
    dict
        As `validate`.
    """
    scores = np.concatenate([r[2] for r in runs])
    gained = np.concatenate([r[3] for r in runs])
    true = sum(r[1] for r in runs)
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(gained[order])
    if not len(scores) or not hits[-1]:
        zero = dict.fromkeys(("f1", "precision", "recall"), 0.0)
        return {"threshold": 0.5, **zero, "volumes": {r[0]: 0.0 for r in runs}}
    f1 = 2 * hits / (np.arange(1, len(scores) + 1) + true)
    best = int(np.argmax(f1))
    # Half way to the next candidate: the threshold should not sit on one cell's score.
    following = scores[best + 1] if best + 1 < len(scores) else LEAST_SCORE
    threshold = float((scores[best] + following) / 2)
    volumes = {}
    for name, count, own, own_gained in runs:
        kept = own >= threshold
        volumes[name] = float(2 * own_gained[kept].sum() / max(kept.sum() + count, 1))
    return {
        "threshold": threshold,
        "f1": float(f1[best]),
        "precision": float(hits[best] / (best + 1)),
        "recall": float(hits[best] / true),
        "volumes": volumes,
    }
