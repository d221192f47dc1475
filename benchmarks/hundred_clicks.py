"""Fine-tuning with few labelled cells: F1 on real held-out data for different numbers of cells.

    python benchmarks/hundred_clicks.py --output benchmarks/results/hundred_clicks.json

A model that never saw light-sheet data (models/phantom.safetensors) is fine-tuned for microglia. It
gets only the centroids in a cube of one training volume with 25, 50 or 100 cells, or in that whole
volume. The last third of the cube along y is used for validation, which chooses the threshold. With
--scratch, a network of the same shape is trained from random weights with the same cells and steps.
"""

import argparse
import dataclasses
import logging
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import real_data
from left_out import scores_of

from voxmill.config.training import TrainingSettings
from voxmill.geometry import Box
from voxmill.runtime.files import sha256, write_json
from voxmill.training.fine_tuning import fine_tuning_settings, initial_weights
from voxmill.training.loop import train
from voxmill.training.sources import Source, points_in
from voxmill.training.validation import find_points, predict_box

SETTINGS = {
    "cell_diameter_um": 12.0,
    "target_sigma_um": 2.0,
    "positive_weight": 10.0,
    "patch_vox": (32, 48, 48),
    "steps": 120,
    "learning_rate": 1e-3,
    "average": 0.98,
    "validate_every": 40,
    "augmentation": {"rotate": "yx", "scale": 0.4},
    "device": "cpu",
}


def clicks(source: Source, cells: int | None) -> Source:
    """Restrict a source to the smallest cube at its origin with this many cells; None: all."""
    shape = np.array(source.volume.shape)
    stop = shape
    if cells is not None:
        reach = np.sort((source.points + 0.5).max(axis=1))[cells - 1]
        stop = np.minimum(np.ceil(reach), shape)
    stop = tuple(int(n) for n in stop)
    # Cells outside the cube count as unknown.
    box = Box.from_shape(stop)
    points = points_in(source.points, box)
    validation = Box((0, 2 * stop[1] // 3, 0), stop)
    return dataclasses.replace(source, points=points, region=box, validation=validation)


def adapt(source: Source, settings: TrainingSettings, initial, held: Source, threads):
    """Train on the source and score the held-out volume at the threshold of the validation."""
    trained = train([source], settings, "cpu", threads, initial=initial)
    probability = predict_box(
        trained.network,
        held,
        Box.from_shape(held.volume.shape),
        settings.normalisation,
        "cpu",
        threads,
    )
    threshold = trained.validation["threshold"]
    points, _ = find_points(probability[0], settings, held.voxel_size_um, threshold)
    validation = {"f1_validation": round(trained.validation["f1"], 4)}
    return scores_of(real_data.truth_of(held), points) | validation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--start", default="models/phantom.safetensors")
    parser.add_argument("--stain", default="microglia", choices=sorted(real_data.TRAINING))
    parser.add_argument("--cells", nargs="+", default=["0", "25", "50", "100", "all"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=SETTINGS["steps"])
    parser.add_argument(
        "--normalisation",
        choices=("start", "stain"),
        default="start",
        help="of the model to start from, or of the stain's own model (local)",
    )
    parser.add_argument("--data", type=Path, default=real_data.DATA)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--scratch", action="store_true")
    parser.add_argument("--output")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    stain = options.stain
    source = real_data.read_source(real_data.TRAINING[stain][0], options.data)
    limit = real_data.MATCH_VOX[stain] * source.voxel_size_um[2]
    held = real_data.read_source(real_data.HELD_OUT[stain], options.data)
    rows = []
    for cells in options.cells:
        few = clicks(source, None if cells == "all" else max(int(cells), 25))
        for seed in options.seeds:
            own = SETTINGS | {"seed": seed, "max_distance_um": limit, "steps": options.steps}
            # With 0 cells the model stays unchanged, at the threshold that 25 cells choose.
            own |= {"steps": 1, "learning_rate": 1e-12} if cells == "0" else {}
            if options.normalisation == "stain":
                own["normalisation"] = real_data.SETTINGS[stain].normalisation
            settings = TrainingSettings.from_dict(fine_tuning_settings(own, options.start))
            weights = initial_weights(options.start, settings)
            for start, initial in (("adapted", weights), ("from scratch", None)):
                if initial is None and (cells == "0" or not options.scratch):
                    continue
                row = {
                    "cells": 0 if cells == "0" else len(few.points),
                    "start": start,
                    "seed": seed,
                }
                row |= {"region_vox": few.region.stop}
                row |= adapt(few, settings, initial, held, options.threads)
                rows.append(row)
                print(row, flush=True)
                if options.output:
                    model = {"weights": str(options.start), "sha256": sha256(options.start)}
                    write_json(
                        options.output, {"held_out": held.name, "start": model, "rows": rows}
                    )


if __name__ == "__main__":
    main()
