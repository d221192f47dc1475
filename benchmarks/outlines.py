"""Labels and outlines beside other ways to make objects of a map and of seeds.

    python benchmarks/outlines.py methods
    python benchmarks/outlines.py foreground
    python benchmarks/outlines.py limits

`methods`: a phantom's cells (tilted ellipsoids, half of them placed against another one) as a
blurred, noisy map, as a network that learned masks gives one, and their places a voxel off as
seeds; every method gets the same map and seeds. `foreground`: the phantom model, which learned
centroids, on a phantom: objects from its probability, from the image and, with `--masks`, from a
model that learned masks: `python benchmarks/phantom_model.py train --settings '{"target": "mask",
"touching": "centre"}' --output results/masks.safetensors`. `limits`: the image's foreground from
the true places, on phantoms without one of the things that make volumes uncertain.
"""

import argparse
import functools
import sys
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from skimage.measure import euler_number, label
from skimage.segmentation import morphological_chan_vese, watershed

from voxmill.cells.foreground import read_foreground
from voxmill.cells.labels import label_block
from voxmill.cells.outlines import outline_block
from voxmill.cells.seeds import Seeds
from voxmill.config.objects import ObjectSettings
from voxmill.config.phantoms import PhantomSettings
from voxmill.evaluation.instances import (
    count_overlaps,
    match_objects,
    scores_at,
    splits_and_merges,
)
from voxmill.evaluation.surfaces import compare_pairs
from voxmill.geometry import Box, VoxelSize
from voxmill.phantoms import parts
from voxmill.volumes.blocks import ArrayVolume


def cells_and_map(edge: int, cells: int, noise: float, seed: int = 0):
    """Labels of about so many cells in a cube, a map of them, and their places in voxels."""
    base = PhantomSettings()
    size = np.array(base.voxel_size_um)
    extent = edge * size
    settings = PhantomSettings(
        seed=seed, shape_vox=(edge,) * 3, touching=0.5, stubs_per_cell=0.0,
        density_per_mm3=cells / (np.prod(extent) * 1e-9), vessels_per_mm3=0.0,
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    nothing = np.zeros((0, 3)), np.zeros(0)
    centres, radii = parts.place_cells(rng, settings, extent, nothing)
    truth = parts.draw_cells(
        np.zeros(settings.shape_vox, np.float32), rng, settings, centres, radii
    )
    # Where cells touch the map is lower, as networks that learned labels leave it.
    highest = ndimage.maximum_filter(truth, 3)
    lowest = ndimage.minimum_filter(np.where(truth > 0, truth, truth.max() + 1), 3)
    gap = (truth > 0) & (highest != lowest)
    soft = ndimage.gaussian_filter((1.0 * (truth > 0) - 0.4 * gap).astype(np.float32), 0.7)
    rough = ndimage.gaussian_filter(rng.standard_normal(truth.shape, np.float32), 0.8)
    values = np.clip(soft + noise * rough / rough.std(), 0, 1)
    places = centres / size - 0.5 + rng.normal(0, 0.6, centres.shape)
    return truth, values, np.clip(places, 0, edge - 1), VoxelSize.of(base.voxel_size_um)


def ours(function, values, places, size, threads=1, grey=None, **settings):
    whole = Box.from_shape(values.shape)
    seeds = Seeds(places, np.arange(1, len(places) + 1))
    extra = {} if function is label_block else {"threads": threads, "grey": grey}
    chosen = ObjectSettings(**settings)
    return function(values, (0, 0, 0), whole, whole, seeds, size, chosen, **extra)


def markers_of(shape, places):
    markers = np.zeros(shape, np.int32)
    markers[tuple(np.rint(places).astype(int).T)] = np.arange(1, len(places) + 1)
    return markers


def watershed_of_map(values, places, size):
    return watershed(-values, markers_of(values.shape, places), mask=values >= 0.5)


def watershed_of_distance(values, places, size):
    far = ndimage.distance_transform_edt(values >= 0.5, sampling=tuple(size))
    return watershed(-far, markers_of(values.shape, places), mask=values >= 0.5)


def components(values, places, size):
    return label(values >= 0.5, connectivity=1)


def active_contours(values, places, size):
    """Morphological Chan-Vese on the map, from the threshold on; then the watershed."""
    mask = morphological_chan_vese(values, 10, init_level_set=values >= 0.5, smoothing=1) > 0
    return watershed(-values, markers_of(values.shape, places), mask=mask)


def not_balls(labels) -> int:
    """Objects that are in pieces, or have handles or holes."""
    count = 0
    for k, box in enumerate(ndimage.find_objects(labels.astype(np.int32)), start=1):
        if box is None:
            continue
        mask = np.pad(labels[box] == k, 1)
        count += (
            label(mask, connectivity=1).max() != 1
            or label(~mask, connectivity=1).max() != 1
            or euler_number(mask, connectivity=1) != 1
        )
    return count


def volume_errors(overlaps, left_out=()) -> np.ndarray:
    """Relative errors of the volumes of matched cells of more than 200 voxels."""
    rows, _ = match_objects(overlaps, 0.3)
    true, got = overlaps.truth.counts[rows[:, 0]], overlaps.found.counts[rows[:, 1]]
    kept = (true > 200) & ~np.isin(overlaps.truth.labels[rows[:, 0]], left_out)
    return got[kept] / true[kept] - 1


def line(name, truth, found, size, seconds):
    volumes = ArrayVolume(truth), ArrayVolume(found)
    overlaps = count_overlaps(*volumes, block_vox=512)
    at_half = scores_at(overlaps, 0.5)
    mean = np.mean([scores_at(overlaps, t)["average_precision"] for t in (0.5, 0.6, 0.7, 0.8, 0.9)])
    pairs = compare_pairs(overlaps, *volumes, size)
    surface, farthest = (
        f"{values.mean():.2f}" if len(values) else "-"
        for values in (pairs.mean_surface_um, pairs.hausdorff95_um)
    )
    errors = volume_errors(overlaps)
    error, bias = (np.median(e) if len(e) else np.nan for e in (np.abs(errors), errors))
    counts = splits_and_merges(overlaps)
    print(
        f"| {name} | {at_half['average_precision']:.3f} | {mean:.3f} | "
        f"{at_half['panoptic_quality']:.3f} | {surface} | "
        f"{farthest} | {bias:+.1%} | {error:.1%} | "
        f"{counts['split_objects']} / {counts['merged_objects']} | {not_balls(found)} | "
        f"{seconds:.1f} |",
        flush=True,
    )


VOLUMES = (
    "| foreground | AP 0.5 | PQ | cells of more than 200 voxels | volume | of it, abs. | "
    "90th percentile | within a tenth |\n" + 8 * "|---" + "|"
)


def inner_errors(overlaps, truth) -> np.ndarray:
    """Relative errors of large cells that the border does not cut."""
    inside = np.pad(truth[1:-1, 1:-1, 1:-1], 1)
    return volume_errors(overlaps, np.unique(truth[truth != inside]))


def volume_line(name, truth, found) -> None:
    """Volumes of cells that the border does not cut."""
    overlaps = count_overlaps(ArrayVolume(truth), ArrayVolume(found), block_vox=512)
    scores = scores_at(overlaps, 0.5)
    errors = inner_errors(overlaps, truth)
    if not len(errors):
        errors = np.array([np.nan])
    sizes = np.abs(errors)
    print(
        f"| {name} | {scores['average_precision']:.3f} | {scores['panoptic_quality']:.3f} | "
        f"{np.isfinite(errors).sum()} | {np.median(errors):+.1%} | {np.median(sizes):.1%} | "
        f"{np.percentile(sizes, 90):.1%} | {(sizes < 0.1).mean():.0%} |",
        flush=True,
    )


HEAD = (
    "| method | AP 0.5 | AP 0.5-0.9 | PQ | surface, um | Hausdorff 95, um | volume | of it, abs. |"
    " split / merged | not balls | wall s |\n" + 11 * "|---" + "|"
)


def timed(work):
    start = time.perf_counter()
    found = work()
    return found, time.perf_counter() - start


def run_methods(options) -> None:
    truth, values, places, size = cells_and_map(options.edge, options.cells, options.noise)
    print(f"{len(places)} cells in {options.edge}^3, noise {options.noise}\n\n{HEAD}")
    methods = {
        "labels": functools.partial(ours, label_block),
        "outlines": functools.partial(ours, outline_block, threads=options.threads),
        "watershed of the map": watershed_of_map,
        "watershed of the distance": watershed_of_distance,
        "active contours, watershed": active_contours,
        "connected components": components,
    }
    ours(label_block, values[:1, :1, :1], places[:0], size)  # compiles
    for name, method in methods.items():
        found, seconds = timed(functools.partial(method, values, places, size))
        line(name, truth, found, size, seconds)


def run_foreground(options) -> None:
    import phantom_model

    from voxmill.config.training import TrainingSettings
    from voxmill.networks import models
    from voxmill.networks.heads import cell_map
    from voxmill.phantoms.make_phantom import draw_labelled

    phantom = PhantomSettings(seed=options.seed, shape_vox=(64, 192, 192))
    volume, _, truth = draw_labelled(phantom)
    size, whole = VoxelSize.of(phantom.voxel_size_um), Box.from_shape(volume.shape)
    source = phantom_model.phantom_source(phantom, held=True)
    found_by = {}
    for path in filter(None, ("models/phantom.safetensors", options.masks)):
        card, network = models.load(path)
        training = TrainingSettings.from_dict(card.training["settings"])
        maps = phantom_model.predict_box(
            network, source, source.region, card.normalisation, "cpu", options.threads
        )
        probability = cell_map(card.outputs, maps)
        places, _ = phantom_model.find_points(probability, training, size, card.threshold)
        found_by[path] = probability, places
    probability, places = found_by["models/phantom.safetensors"]
    print(f"{truth.max()} cells, {len(places)} found, seed {options.seed}\n\n{VOLUMES}")
    for threshold in (0.1, 0.3, 0.5):
        found = ours(outline_block, probability, places, size, threshold=threshold)
        volume_line(f"probability of centroids from {threshold}", truth, found)
    for threshold in (0.4, 0.45, 0.5):
        settings = ObjectSettings(foreground="image", threshold=threshold)
        values, grey = read_foreground(ArrayVolume(volume), whole, size, settings)
        found = ours(outline_block, values, places, size, grey=grey, threshold=threshold)
        volume_line(f"image from {threshold}", truth, found)
    if options.masks:
        volume_line("learnt masks", truth, ours(outline_block, *found_by[options.masks], size))


LEFT_OUT: dict[str, dict] = {
    "nothing": {},
    "shadows": {"stripes": 0.0},
    "stubs": {"stubs_per_cell": 0.0},
    "dark nuclei": {"hollow": 0.0},
    "touching cells": {"touching": 0.0},
    "most noise: ten times the light": {"signal_photons": 2000.0, "background_photons": 1000.0},
    "blur": {"blur_um": (0.0, 0.0, 0.0)},
    "texture of the background": {"background_variation": 0.0},
}
LEFT_OUT["all of these"] = functools.reduce(lambda a, b: a | b, LEFT_OUT.values())
LEFT_OUT["all but the shadows"] = LEFT_OUT["all of these"] | {"stripes": PhantomSettings().stripes}
LEFT_OUT["all but the stubs"] = LEFT_OUT["all of these"] | {"stubs_per_cell": 2.0}


def run_limits(options) -> None:
    """What keeps volumes from being exact: phantoms without it, and with true places."""
    from voxmill.phantoms.make_phantom import draw_labelled

    print("| left out | cells | volume | of it, abs. | 90th percentile | within a tenth |")
    print(6 * "|---" + "|")
    chosen = ObjectSettings(foreground="image", threshold=0.45)
    for name, changed in LEFT_OUT.items():
        parts_of = []
        for seed in range(options.seed, options.seed + 3):
            phantom = PhantomSettings(seed=seed, shape_vox=(64, 192, 192), **changed)
            volume, places, truth = draw_labelled(phantom)
            size, whole = VoxelSize.of(phantom.voxel_size_um), Box.from_shape(volume.shape)
            values, grey = read_foreground(ArrayVolume(volume), whole, size, chosen)
            places = np.clip(places, 0, np.array(volume.shape) - 1)
            found = ours(outline_block, values, places, size, grey=grey, threshold=0.45)
            overlaps = count_overlaps(ArrayVolume(truth), ArrayVolume(found), block_vox=512)
            parts_of.append(inner_errors(overlaps, truth))
        errors = np.concatenate(parts_of)
        sizes = np.abs(errors)
        print(
            f"| {name} | {len(errors)} | {np.median(errors):+.1%} | {np.median(sizes):.1%} | "
            f"{np.percentile(sizes, 90):.1%} | {(sizes < 0.1).mean():.0%} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    methods = commands.add_parser("methods")
    methods.add_argument("--edge", type=int, default=256)
    methods.add_argument("--cells", type=int, default=500)
    methods.add_argument("--noise", type=float, default=0.15)
    methods.set_defaults(run=run_methods)
    foreground = commands.add_parser("foreground")
    foreground.add_argument("--seed", type=int, default=3001)
    foreground.add_argument("--masks", help="a model that learned masks of phantoms")
    foreground.set_defaults(run=run_foreground)
    limits = commands.add_parser("limits")
    limits.add_argument("--seed", type=int, default=6001, help="the first of three")
    limits.set_defaults(run=run_limits)
    for command in (methods, foreground, limits):
        command.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
