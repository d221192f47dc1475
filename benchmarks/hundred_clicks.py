r"""Adapting a model by clicks: F1 on real data for different numbers of clicked cells.

    python benchmarks/general_model.py lovo --work results/general
    python benchmarks/hundred_clicks.py --stain cfos \
        --start results/general/without-cfos.safetensors
    python benchmarks/hundred_clicks.py --stain microglia \
        --start results/general/without-microglia.safetensors

The start is a model that has not seen the stain: the general one trained without it, or
models/phantom.safetensors. It gets the centroids in a corner of one volume with 25, 50 or 100 cells
(whole cells of other volumes and masks stay unknown). The last third of the corner along y is kept
out of the training, for the threshold and for the comparison with the start, as in the workflow.
Judged are the rest of the clicked volume, and another volume of the stain, before and after.
"""

import argparse
import dataclasses
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import general_model
import real_data
from left_out import Volume, scores_of

from voxmill.config.training import TrainingSettings
from voxmill.geometry import Box
from voxmill.networks import models
from voxmill.runtime.files import sha256, write_json
from voxmill.training.fine_tuning import fine_tuning_settings, initial_weights
from voxmill.training.loop import train
from voxmill.training.sources import Source, points_in
from voxmill.training.validation import find_points, predict_box

SETTINGS = {"patch_vox": (32, 48, 48), "steps": 120, "average": 0.98, "validate_every": 40}
# The volumes that are clicked, and the ones that are judged beside.
PAIRS = {
    "cfos": (("cfos_753", "cfos_695"), ("cfos_695", "cfos_753")),
    "microglia": (("microglia_1874", "microglia_6506"), ("microglia_3941", "microglia_6506")),
}


@dataclasses.dataclass
class Read:
    """A volume as a model reads it.

    Parameters
    ----------
    source : Source
    truth : Volume
        In the file's voxels.
    to_file : callable
        Points of the source, (N, 3) voxels, in the file's voxels.
    """

    source: Source
    truth: Volume
    to_file: Callable[[np.ndarray], np.ndarray]


def read(name: str, card: models.ModelCard, folder: Path) -> Read:
    """Read a volume, resampled where the model is for cells of any size."""
    own = real_data.read_source(name, folder)
    if card.cell_diameter_vox is None:
        return Read(dataclasses.replace(own, mask=None), real_data.truth_of(own), lambda p: p)
    section = general_model.stained(folder)[name] | {"validation": None, "region": None}
    (source,), _ = general_model.in_memory({name: section})
    to_own = general_model.resampled_grid(name).to_own
    return Read(dataclasses.replace(source, mask=None), real_data.truth_of(own), to_own)


def clicks(source: Source, cells: int) -> Source:
    """Restrict a source to the smallest cube at its origin with this many cells."""
    shape = np.array(source.volume.shape)
    reach = np.sort((source.points + 0.5).max(axis=1))[cells - 1]
    stop = tuple(int(n) for n in np.minimum(np.ceil(reach), shape))
    # Cells outside the cube count as unknown.
    box = Box.from_shape(stop)
    points = points_in(source.points, box)
    validation = Box((0, 2 * stop[1] // 3, 0), stop)
    return dataclasses.replace(source, points=points, region=box, validation=validation)


def rest(volume: Read, clicked: Source) -> Volume:
    """The ground truth of a volume but for the clicked corner."""
    stop = np.rint(volume.to_file(np.array([clicked.region.stop], float))[0]).astype(int)
    whole = Box.from_shape(volume.truth.shape)
    # All that lies beyond the corner along z; else along y; else along x.
    axes = np.arange(3)
    regions = [
        Box(
            tuple(np.where(axes == axis, stop, 0).tolist()),
            tuple(np.where(axes < axis, stop, whole.stop).tolist()),
        )
        for axis in range(3)
        if stop[axis] < whole.stop[axis]
    ]
    kept = dataclasses.replace(volume.truth, regions=regions)
    return dataclasses.replace(kept, points=kept.points[kept.kept(kept.points)])


class Judge:
    """F1 of networks on volumes; maps of a network that was seen before are kept.

    Parameters
    ----------
    threads : int
    """

    def __init__(self, threads: int):
        self._threads = threads
        self._kept: dict[str, np.ndarray] = {}

    def __call__(
        self, volume: Read, truth: Volume, network, settings, threshold: float, key: str = ""
    ) -> dict:
        """Scores in the regions of a ground truth; `key` names a map to keep."""
        maps = self._kept.get(key)
        if maps is None:
            box = Box.from_shape(volume.source.volume.shape)
            maps = predict_box(
                network, volume.source, box, settings.normalisation, "cpu", self._threads
            )[0]
        if key:
            self._kept[key] = maps
        found, _ = find_points(maps, settings, volume.source.voxel_size_um, threshold)
        found = volume.to_file(found)
        return scores_of(truth, found[truth.kept(found)])


def row_of(of: Read, other: Read, cells: int, judge: Judge, options) -> dict:
    """Adapt the model to some cells of a volume, and judge it before and after."""
    few = clicks(of.source, cells)
    card, start = models.load(options.start)
    own = SETTINGS | {"device": "cpu", "learning_rate": options.learning_rate}
    limit_vox = real_data.MATCH_VOX[options.stain]
    if card.cell_diameter_vox is None:
        own["max_distance_um"] = limit_vox * few.voxel_size_um[2]
        own["cell_diameter_um"] = real_data.SETTINGS[options.stain].cell_diameter_um
    settings = TrainingSettings.from_dict(fine_tuning_settings(own, options.start))
    weights = initial_weights(options.start, settings)
    trained = train([few], settings, "cpu", options.threads, None, weights, card.threshold)
    row = {"volume": of.source.name, "cells": len(few.points)}
    row["best_step"] = trained.validation["step"]
    row["f1_validation"] = [trained.history[0]["f1"], trained.validation["f1"]]
    row["thresholds"] = [card.threshold, trained.validation["threshold"]]
    for key, volume, truth in (("rest", of, rest(of, few)), ("other", other, other.truth)):
        name = volume.source.name
        before = judge(volume, truth, start, settings, card.threshold, name)
        after = before
        if row["best_step"]:
            after = judge(volume, truth, trained.network, settings, row["thresholds"][1])
        row[key] = {k: [before[k], after[k]] for k in ("f1", "precision", "recall")}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--start", default="models/phantom.safetensors")
    parser.add_argument("--stain", default="microglia", choices=sorted(PAIRS))
    parser.add_argument("--cells", nargs="+", type=int, default=[25, 50, 100])
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--data", type=Path, default=real_data.DATA)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    card, judge, rows = models.read_card(options.start), Judge(options.threads), []
    names = {name for pair in PAIRS[options.stain] for name in pair}
    volumes = {name: read(name, card, options.data) for name in sorted(names)}
    for clicked, other in PAIRS[options.stain]:
        for cells in options.cells:
            rows.append(row_of(volumes[clicked], volumes[other], cells, judge, options))
            print(rows[-1], flush=True)
            if options.output:
                start = {"weights": str(options.start), "sha256": sha256(options.start)}
                write_json(options.output, {"start": start, "rows": rows})


if __name__ == "__main__":
    main()
