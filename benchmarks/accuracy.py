"""Accuracy on real light-sheet volumes: network, difference of Gaussians, gradient boosting.

    python benchmarks/accuracy.py train --stain cfos
    python benchmarks/accuracy.py compare --output benchmarks/results/accuracy.json

`train` trains a network on the training volumes of a stain (`benchmarks/real_data.py` lists them),
chooses its threshold by cross-validation over them, and writes `models/<stain>.safetensors`.
`compare` finds the cells of the held-out volumes with three methods, each tuned on the training
volumes alone:

network  : the model, at the threshold of its card;
dog      : difference of Gaussians with the scale and threshold of the best F1 on the training
           volumes;
boosting : candidates of that filter at a very low threshold, classified by gradient boosting
           (scikit-learn) from grey values and filter responses at several scales; the threshold
           comes from cross-validation over the training volumes.
"""

import argparse
import dataclasses
import itertools
import json
import logging
import sys
from pathlib import Path

import numpy as np
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import real_data

from voxmill.config.training import TrainingSettings
from voxmill.evaluation import metrics
from voxmill.evaluation.baselines import DogSettings, find_cells_dog
from voxmill.evaluation.matches import Frame, match_cells
from voxmill.evaluation.matching import match_points
from voxmill.evaluation.thresholds import best_threshold
from voxmill.geometry import Box, VoxelSize
from voxmill.networks import models
from voxmill.runtime.files import sha256, write_json
from voxmill.training.loop import train
from voxmill.training.train_network import make_card
from voxmill.training.validation import (
    find_points,
    predict_box,
    score_by_threshold,
    summarise_thresholds,
)
from voxmill.volumes.normalisation import normalise

SIZE = real_data.VOXEL_SIZE_UM


def scores_of(source, points, limit) -> dict:
    """Compute F1, precision and recall of detections.

    `f1_inside` is F1 of the region that lies `limit` voxels inside the volume (see
    `voxmill.evaluation.matches` for cells at its edge), `cells_inside` the number of true cells in
    it.
    """
    shape = source.volume.shape
    edge = int(limit)
    volume, size = Box.from_shape(shape), VoxelSize.of(SIZE)
    whole, inside = (
        match_cells(source.points, points, np.zeros(len(points)), Frame(shape, size, region), limit)
        for region in (volume, volume.grow(-edge))
    )
    scores = metrics.scores_of(*whole.counts)
    return {
        **{key: round(scores[key] or 0.0, 4) for key in ("f1", "precision", "recall")},
        "found": len(points),
        "f1_inside": round(metrics.f1(*inside.counts) or 0.0, 4),
        "cells_inside": int(inside.truth_inside.sum()),
    }


def tune_dog(sources, settings: DogSettings, limit):
    """Find the scale and threshold with the best F1 over all training volumes together."""
    best = (0.0, None, None)
    # Volumes are shifted along z by more than any match can reach.
    shift = np.array([10_000.0, 0, 0])
    truth = np.concatenate([s.points + i * shift for i, s in enumerate(sources)])
    for scale in settings.scales:
        runs = [find_cells_dog(s.volume, settings, SIZE, scale) for s in sources]
        points = np.concatenate([p + i * shift for i, (p, _) in enumerate(runs)])
        scores = np.concatenate([r[1] for r in runs])
        threshold, f1 = best_threshold(truth, points, scores, limit, SIZE)
        if f1 > best[0]:
            best = (f1, scale, threshold)
    return best


def features(source, points, normalisation) -> np.ndarray:
    """Features of each candidate: smoothed grey values, filter responses, standard deviations."""
    shape = source.volume.shape
    grey = normalise(source.volume.read_window((0, 0, 0), shape), source.statistics, normalisation)
    index = np.clip(np.rint(points).astype(int), 0, np.array(shape) - 1)
    at = tuple(index.T)
    columns = [grey[at]]
    smooth = [ndimage.gaussian_filter(grey, s) for s in (0.7, 1.0, 1.5, 2.2, 3.3, 5.0, 8.0)]
    columns += [s[at] for s in smooth]
    columns += [(a - b)[at] for a, b in itertools.pairwise(smooth)]
    for size in (5, 9, 15, 31):
        mean = ndimage.uniform_filter(grey, size)
        spread = np.sqrt(np.maximum(ndimage.uniform_filter(grey**2, size) - mean**2, 0))
        columns += [mean[at], spread[at], ((smooth[1] - mean) / (spread + 1e-3))[at]]
    for sigma in (1.0, 2.0):
        for axis in range(3):
            order = [0, 0, 0]
            order[axis] = 2
            columns.append(ndimage.gaussian_filter(grey, sigma, order=order)[at])
    columns.append(ndimage.maximum_filter(grey, 9)[at] - grey[at])
    columns.append(ndimage.minimum_filter(smooth[0], 9)[at])
    return np.column_stack(columns)


def boosting(sources, held, settings: DogSettings, scale, normalisation, limit):
    """Points of the held-out volume that gradient boosting classifies as cells."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    def candidates(source):
        points, scores = find_cells_dog(source.volume, settings, SIZE, scale)
        keep = np.argsort(-scores)[: 20 * len(source.points)]
        points, scores = points[keep], scores[keep]
        table = np.column_stack([features(source, points, normalisation), scores])
        return points, table

    def label(source, points):
        labels = np.zeros(len(points), bool)
        labels[match_points(source.points, points, limit, SIZE)[:, 1]] = True
        return labels

    def classifier():
        return HistGradientBoostingClassifier(
            max_iter=200, learning_rate=0.06, l2_regularization=1.0, random_state=0
        )

    data = [candidates(s) for s in sources]
    labels = [label(s, p) for s, (p, _) in zip(sources, data, strict=True)]
    shift = np.array([10_000.0, 0, 0])
    held_out_scores = []
    for i in range(len(sources)):
        others = [j for j in range(len(sources)) if j != i]
        fitted = classifier().fit(
            np.concatenate([data[j][1] for j in others]),
            np.concatenate([labels[j] for j in others]),
        )
        held_out_scores.append(fitted.predict_proba(data[i][1])[:, 1])
    threshold, _ = best_threshold(
        np.concatenate([s.points + i * shift for i, s in enumerate(sources)]),
        np.concatenate([p + i * shift for i, (p, _) in enumerate(data)]),
        np.concatenate(held_out_scores),
        limit,
        SIZE,
    )
    fitted = classifier().fit(np.concatenate([d[1] for d in data]), np.concatenate(labels))
    points, table = candidates(held)
    return points[fitted.predict_proba(table)[:, 1] >= threshold]


def network_points(weights, source, threads):
    """Find cells with a model."""
    card, network = models.load(weights)
    settings = TrainingSettings.from_dict(card.training["settings"])
    probability = predict_box(network, source, source.region, card.normalisation, "cpu", threads)
    return find_points(probability[0], settings, SIZE, card.threshold)[0]


def cross_validate(sources, settings, options, output):
    """Choose detector and threshold with networks that never saw the volume they are scored on.

    The best threshold differs between volumes, as their brightness does; a held-out part of a
    training volume would not show this. A volume is skipped if the other volumes hold too few
    cells, since a network trained on so few is unlike the shipped one.
    """
    folds = []
    for i, held in enumerate(sources):
        others = [s for j, s in enumerate(sources) if j != i]
        share = 1 - len(held.points) / sum(len(s.points) for s in sources)
        if share < real_data.LEAST_SHARE:
            continue
        unseen = dataclasses.replace(held, validation=held.region)
        checkpoint = f"{output}.fold{i}.checkpoint"
        fitted = train([*others, unseen], settings, "cpu", options.threads, checkpoint)
        box = unseen.validation
        normalisation = settings.normalisation
        probability = predict_box(
            fitted.network, unseen, box, normalisation, "cpu", options.threads
        )
        folds.append((unseen, probability[0]))
    best = {"f1": -1.0}
    candidates = real_data.DETECTORS[options.stain]
    for values in itertools.product(*candidates.values()):
        detector = {**settings.detector, **dict(zip(candidates, values, strict=True))}
        chosen = dataclasses.replace(settings, detector=detector)
        runs = [(s.name, *score_by_threshold(p, s, s.region, chosen)) for s, p in folds]
        result = {**summarise_thresholds(runs), "detector": detector}
        logging.info("cross-validation: %s", result)
        best = result if result["f1"] > best["f1"] else best
    return best


def run_training(options) -> None:
    """Cross-validate over the training volumes of a stain, then train on all of them."""
    stain = options.stain
    settings = dataclasses.replace(real_data.SETTINGS[stain], **json.loads(options.settings))
    names = real_data.TRAINING[stain]
    sources = [real_data.read_source(name, options.data) for name in names]
    output = Path(options.models) / f"{stain}.safetensors"
    chosen = cross_validate(sources, settings, options, output)
    settings = dataclasses.replace(settings, detector=chosen.pop("detector"))
    # The training needs validation data: a box of training cells, scored for the log alone.
    box = Box.from_shape(real_data.WATCHED_VOX)
    watched = dataclasses.replace(sources[0], region=box, validation=box)
    checkpoint = f"{output}.checkpoint"
    trained = train([*sources, watched], settings, "cpu", options.threads, checkpoint)
    training = {
        "command": f"python benchmarks/accuracy.py train --stain {stain}"
        + (f" --settings '{options.settings}'" if options.settings != "{}" else ""),
        "source": real_data.SOURCE,
        "licence": real_data.LICENCE,
        "volumes": {n: real_data.digests(n, options.data) for n in names},
        "held_out": real_data.HELD_OUT[stain],
        "validation": "by volume: networks trained like this one, each without the volume that it "
        "is scored on, give the detector settings, the threshold and the validation metrics",
    }
    trained = dataclasses.replace(trained, validation=chosen)
    models.save(output, trained.network, make_card(stain, settings, trained, SIZE, training))


def run_comparison(options) -> None:
    """Compare the three methods on the held-out volumes."""
    report = {}
    for stain in options.stains:
        limit = real_data.MATCH_VOX[stain]
        sources = [real_data.read_source(n, options.data) for n in real_data.TRAINING[stain]]
        held = real_data.read_source(real_data.HELD_OUT[stain], options.data)
        dog = DogSettings(2 * limit, scales=(0.25, 0.32, 0.4, 0.55, 0.7, 0.85, 1.0, 1.2, 1.45))
        tuned_f1, scale, threshold = tune_dog(sources, dog, limit)
        points, scores = find_cells_dog(held.volume, dog, SIZE, scale)
        rows = {"dog": scores_of(held, points[scores >= threshold], limit)}
        rows["dog"] |= {"scale": scale, "threshold": threshold, "f1_tuned": round(tuned_f1, 4)}
        normalisation = real_data.SETTINGS[stain].normalisation
        points = boosting(sources, held, dog, scale, normalisation, limit)
        rows["boosting"] = scores_of(held, points, limit)
        weights = Path(options.models) / f"{stain}.safetensors"
        if weights.exists():
            points = network_points(weights, held, options.threads)
            rows["network"] = scores_of(held, points, limit)
            rows["network"]["weights_sha256"] = sha256(weights)
        for method, row in rows.items():
            print(f"{stain:10s} {held.name:16s} {method:9s}", row, flush=True)
        report[stain] = {"held_out": held.name, "cells": len(held.points), "methods": rows}
    if options.output:
        write_json(options.output, report)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train")
    training.add_argument("--stain", choices=sorted(real_data.TRAINING), required=True)
    training.add_argument("--settings", default="{}", help="JSON: settings to change")
    training.set_defaults(run=run_training)
    comparing = commands.add_parser("compare")
    comparing.add_argument("--stains", nargs="+", default=sorted(real_data.TRAINING))
    comparing.add_argument("--output")
    comparing.set_defaults(run=run_comparison)
    for command in (training, comparing):
        command.add_argument("--data", type=Path, default=real_data.DATA)
        command.add_argument("--models", default="models")
        command.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("voxmill.engine").setLevel(logging.WARNING)
    options.run(options)


if __name__ == "__main__":
    main()
