"""Local normalisation and tissue: what they find, and what they cost.

    python benchmarks/normalisation.py compare
    python benchmarks/normalisation.py air
    python benchmarks/normalisation.py cost

`compare` runs weights that were trained with global percentiles on cfos_753 and 1147 as they are on
the two other c-Fos volumes, with several normalisations, and prints F1 at the card's threshold and
at the best one. They are former ones of `models/cfos.safetensors`; today's have seen all four.

    for end in safetensors json; do git show cdc36c6:models/cfos.$end > results/cfos.$end; done
    python benchmarks/normalisation.py compare --weights results/cfos.safetensors

`air` pads the demo's volume with air, or with black, to 31.5 % tissue and prints F1 and the number
of cells of the phantom's model, with and without the mask of tissue.
`cost` prints the seconds that the blocks and the mask add to one pass over a volume.
"""

import argparse
import dataclasses
import sys
import time
from pathlib import Path

import numpy as np
import tifffile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import real_data

from voxmill.cells.find_cells import CellSettings, cells_of_volume
from voxmill.config.normalisation import Normalisation
from voxmill.config.phantoms import PhantomSettings
from voxmill.config.training import TrainingSettings
from voxmill.engine.backends import forward
from voxmill.evaluation.matching import match_points
from voxmill.geometry import Box
from voxmill.networks import models
from voxmill.phantoms.make_phantom import draw_phantom
from voxmill.runtime.files import write_json
from voxmill.training.validation import find_points
from voxmill.volumes import open_volume, read_header, write_planes
from voxmill.volumes.blocks import ArrayVolume
from voxmill.volumes.grey_blocks import BlockPass, block_edges, measure_blocks
from voxmill.volumes.grey_maps import make_maps
from voxmill.volumes.measure_volume import measure_grey_values
from voxmill.volumes.tissue import find_tissue

# The block 100:200, 0:100, 0:100 of cfos_1008 carries no truth.
REGIONS = {
    "cfos_695": ["0:200, 0:200, 0:200"],
    "cfos_1008": [
        "0:100, 0:200, 0:200", "100:200, 100:200, 0:200", "100:200, 0:100, 100:200",
    ],
}  # fmt: skip
THRESHOLDS = (0.08, 0.12, 0.16, 0.2, 0.24, 0.28, 0.32, 0.4, 0.5, 0.6)
KINDS = {
    "global, low 50, high 99": {"low": 50.0, "high": 99.0},
    "local, one contrast": {"kind": "local"},
    "local, one contrast, background 32": {"kind": "local", "background_um": 32.0},
    "local, contrast followed by half": {"kind": "local", "follow": 0.5},
    "local, contrast followed": {"kind": "local", "follow": 1.0},
}


def compare(options) -> dict:
    """F1 of the c-Fos weights with each normalisation on each volume."""
    card, network = models.load(options.weights)
    settings = TrainingSettings.from_dict(card.training["settings"])
    report = {}
    for name, regions in REGIONS.items():
        volume = tifffile.imread(options.data / f"{name}.tif")
        truth = np.loadtxt(options.data / f"{name}_centroids.csv", delimiter=",", skiprows=1)
        boxes = [Box.parse(region, volume.shape) for region in regions]
        blocks = measure_blocks(ArrayVolume(volume))
        tissue = find_tissue(blocks)[0].blocks
        for label, keys in KINDS.items():
            if "kind" in keys:
                maps = make_maps(blocks, Normalisation.from_dict(keys), tissue)
                normal = maps.normalise(volume, (0, 0, 0))
            else:
                low, high = np.percentile(volume, (keys["low"], keys["high"]))
                normal = np.clip((volume.astype(np.float32) - low) / (high - low), -10, 10)
            inputs = normal[None].astype(np.float32)
            probability = forward(network, inputs, "auto", "cpu", "float32", options.threads)[0]
            scores = {}
            for threshold in THRESHOLDS:
                found, _ = find_points(probability, settings, (1.0, 1.0, 1.0), threshold)
                scores[threshold] = f1_within(truth, found, boxes, real_data.MATCH_VOX["cfos"])
            best = max(scores, key=scores.__getitem__)
            row = {"card": scores[card.threshold], "best": scores[best], "best_threshold": best}
            print(f"{name:10s} {label:36s} {row}", flush=True)
            report[f"{name}: {label}"] = row
    return report


def f1_within(truth, found, boxes, limit) -> float:
    """F1 of the points in some boxes of voxels of edge 1."""
    truth, found = (p[np.any([b.contains(p) for b in boxes], axis=0)] for p in (truth, found))
    pairs = match_points(truth, found, limit, (1.0, 1.0, 1.0))
    return round(2 * len(pairs) / max(len(truth) + len(found), 1), 4)


def air(options) -> dict:
    """F1 of the phantom's model on the demo's volume, alone and amid air or black."""
    settings = PhantomSettings(seed=3001, shape_vox=(96, 256, 256), voxel_size_um=(2.5, 1.6, 1.6))
    inner, truth = draw_phantom(settings)
    card, network = models.load("models/phantom.safetensors")
    detector = CellSettings.from_dict({**card.training["settings"]["detector"]})
    detector = dataclasses.replace(detector, threshold=card.threshold)
    # 96 x 256 x 256 of 144 x 376 x 369 voxels.
    widths = [(24, 24), (60, 60), (56, 57)]
    rng = np.random.default_rng(0)
    shape = [n + a + b for n, (a, b) in zip(inner.shape, widths, strict=True)]
    empty = rng.normal(settings.offset, settings.read_noise, shape).round().astype(np.uint16)
    inside = tuple(slice(a, a + n) for n, (a, _) in zip(inner.shape, widths, strict=True))
    cases = {"alone": inner, "in air": empty, "in black": np.zeros_like(empty)}
    for array in (cases["in air"], cases["in black"]):
        array[inside] = inner
    report: dict = {}
    scores: dict = {}
    for label, array in cases.items():
        path = Path(options.folder, f"{label.replace(' ', '_')}.tif")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_planes(path, array, array.shape, array.dtype, settings.voxel_size_um)
        for tissue in ("none", "auto"):
            values = measure_grey_values(read_header(path), tissue)
            # The model sees the tissue alone: air around it changes the grey values only.
            normal = values.normaliser(card.normalisation)(inner, (0, 0, 0))
            key = tuple(values.statistics["percentiles"].values())
            if key not in scores:
                found = forward(network, normal[None], "auto", "cpu", "float32", options.threads)
                table = cells_of_volume(ArrayVolume(found[0]), detector, settings.voxel_size_um)
                points = table[["z_vox", "y_vox", "x_vox"]].to_numpy()
                pairs = match_points(truth, points, 6.0, settings.voxel_size_um)
                f1 = 2 * len(pairs) / (len(truth) + len(points))
                scores[key] = {"f1": round(f1, 4), "cells": len(points)}
            share = values.statistics["tissue"]["share"]
            report[f"{label}, tissue {tissue}"] = {**scores[key], "tissue": round(share, 3)}
            print(
                f"{label:10s} tissue {tissue:5s}", report[f"{label}, tissue {tissue}"], flush=True
            )
    report["share of tissue in truth"] = round(inner.size / empty.size, 3)
    return report


def cost(options) -> dict:
    """Processor seconds of reading planes, of the grey values, and of blocks and mask."""
    path = Path(options.folder, "cost.tif")
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    shape = (64, 2048, 2048)
    write_planes(path, rng.poisson(400, shape).astype(np.uint16), shape, np.uint16, (2.0, 1.0, 1.0))
    header = read_header(path)
    best: dict = {}
    for _ in range(options.repeats):
        blocks = BlockPass(shape, block_edges(shape, header.voxel_size_um))
        spent = dict.fromkeys(("read", "histogram", "blocks", "mask"), 0.0)
        with open_volume(header) as volume:
            for z in range(shape[0]):
                marks = [time.process_time()]
                plane = volume.read_window((z, 0, 0), (z + 1, *shape[1:]))
                marks.append(time.process_time())
                np.bincount(plane.ravel())
                marks.append(time.process_time())
                blocks.add(z, plane[0])
                marks.append(time.process_time())
                for key, seconds in zip(spent, np.diff(marks), strict=False):
                    spent[key] += float(seconds)
        start = time.process_time()
        find_tissue(blocks.result(header.voxel_size_um))
        spent["mask"] = time.process_time() - start
        best = {key: min(value, best.get(key, value)) for key, value in spent.items()}
    path.unlink()
    nanoseconds = {key: round(1e9 * value / np.prod(shape), 3) for key, value in best.items()}
    added = (nanoseconds["blocks"] + nanoseconds["mask"]) / sum(nanoseconds.values())
    report = {"nanoseconds_per_voxel": nanoseconds, "share_of_the_pass": round(added, 3)}
    print(report)
    return report


def main() -> None:
    """Run one of the three parts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=["compare", "air", "cost"])
    parser.add_argument("--data", type=Path, default=real_data.DATA)
    parser.add_argument("--weights", default="models/cfos.safetensors")
    parser.add_argument("--folder", default="benchmarks/results/normalisation")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output")
    options = parser.parse_args()
    report = {"compare": compare, "air": air, "cost": cost}[options.part](options)
    if options.output:
        write_json(options.output, report)


if __name__ == "__main__":
    main()
