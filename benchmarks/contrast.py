"""Which contrast the annotators of the c-Fos volumes went by.

    python benchmarks/contrast.py

Prints, of each volume and of each block of 100 x 100 x 100 voxels that was annotated by itself, the
threshold of a difference of Gaussians with the best F1 (the geometric mean of those within 0.03 of
it), in grey values and in units of what could set it: the background, the texture of the place, and
the two contrasts that local normalisation knows. The less such a quotient scatters, the better one
threshold serves all. The last lines give the standard deviation of the quotients' logarithms, over
blocks and over volumes.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import left_out
import real_data

from voxmill.evaluation.baselines import DogSettings, find_cells_dog
from voxmill.geometry import Box
from voxmill.volumes import grey_maps

SCALE = 0.55
LEAST_CELLS = 12
NEAR = 0.03


def best_threshold(run: left_out.ScoredRun) -> tuple[float, float]:
    """The best F1, and the middle of the thresholds that come near it."""
    near = run.thresholds[run.f1 >= run.f1.max() - NEAR]
    return float(run.f1.max()), float(np.sqrt(near[0] * near[-1]))


def contrasts(source, box: Box) -> dict[str, float]:
    """What could set the threshold in a box of a volume, grey values."""
    grey, tissue = source.grey.blocks, source.grey.tissue.blocks
    spread = grey.level(95.0) - grey.level(50.0)
    edges = zip(box.start, box.stop, grey.edge_vox, strict=True)
    place = tuple(slice(start // edge, -(-stop // edge)) for start, stop, edge in edges)
    return {
        "grey value": 1.0,
        "background": float(np.median(grey.level(50.0)[place][tissue[place]])),
        "texture of the place": float(np.median(spread[place][tissue[place]])),
        "texture": float(np.median(spread[tissue])),
        "cells": grey_maps.cell_contrast(spread, tissue, grey.edge_um),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=real_data.DATA)
    parser.add_argument("--region-um", type=float, default=grey_maps.REGION_UM)
    options = parser.parse_args()
    grey_maps.REGION_UM = options.region_um
    quotients: dict[str, list[dict[str, float]]] = {"blocks": [], "volumes": []}
    for name in real_data.VOLUMES["cfos"]:
        source = real_data.read_source(name, options.data)
        truth = real_data.truth_of(source)
        settings = DogSettings(2 * truth.limit_vox, threshold=30.0)
        points, scores = find_cells_dog(source.volume, settings, left_out.SIZE, SCALE)
        whole = Box.from_shape(truth.shape)
        for kind, boxes in (("volumes", [whole]), ("blocks", whole.blocks(100))):
            for box in boxes:
                own, found = box.contains(truth.points), box.contains(points)
                if own.sum() < LEAST_CELLS:
                    continue
                part = left_out.Volume(
                    name, truth.shape, truth.points[own], truth.regions, truth.limit_vox
                )
                run = left_out.ScoredRun(part, points[found], scores[found])
                f1, threshold = best_threshold(run)
                row = {key: threshold / value for key, value in contrasts(source, box).items()}
                quotients[kind].append(row)
                text = "  ".join(f"/ {key} {value:.3g}" for key, value in row.items())
                print(f"{name:10s} {box!s:26s} {own.sum():5d} cells  F1 {f1:.2f}  {text}")
    for kind, rows in quotients.items():
        for key in rows[0]:
            scatter = np.std([np.log(row[key]) for row in rows])
            print(f"{kind}, threshold / {key}: {scatter:.2f}")


if __name__ == "__main__":
    main()
