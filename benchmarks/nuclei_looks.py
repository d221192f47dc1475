"""Looks at the real data: which volumes of nuclei can be used, and objects of binary masks."""

import dataclasses

import nuclei_data
import numpy as np
import real_data
import tifffile
from scipy import ndimage
from skimage.measure import label
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from voxmill.cells.find_cells import cells_of_volume
from voxmill.cells.foreground import of_image
from voxmill.cells.outlines import outline_block
from voxmill.cells.seeds import Seeds
from voxmill.cells.table import PLACE
from voxmill.config.cells import CellSettings
from voxmill.config.objects import ObjectSettings
from voxmill.evaluation.instances import count_overlaps, match_objects
from voxmill.geometry import Box, VoxelSize
from voxmill.networks import models
from voxmill.networks.heads import cell_map
from voxmill.training.validation import predict_box
from voxmill.volumes.blocks import ArrayVolume

# Voxels nearer than this to a nucleus are tissue, in which nuclei are to be told apart.
NEAR_UM = 1.0


def wrapped_steps(volume: np.ndarray) -> np.ndarray:
    """Differences of neighbours along x, on the circle of 256 grey values."""
    return (np.diff(volume.astype(int), axis=2) + 128) % 256 - 128


def information(volume: np.ndarray, inside: np.ndarray) -> float:
    """Bits that a voxel inside tells of its neighbour along x, beyond what shuffled ones do.

    However grey values were recoded, one by one, this stays: where it is 0, no decoding brings an
    image back.
    """
    pairs = volume[:, :, :-1], volume[:, :, 1:]
    both = inside[:, :, :-1] & inside[:, :, 1:]
    one, other = (part[both].astype(int) for part in pairs)
    bits = []
    for partner in (other, np.random.default_rng(0).permutation(other)):
        shares = np.bincount(256 * one + partner, minlength=65536).reshape(256, 256) / len(one)
        alone = shares.sum(axis=1, keepdims=True) * shares.sum(axis=0, keepdims=True)
        seen = shares > 0
        bits.append((shares[seen] * np.log2(shares[seen] / alone[seen])).sum())
    return bits[0] - bits[1]


def features(volume: np.ndarray, size: VoxelSize) -> np.ndarray:
    """What a low byte could still tell of a place: means on the circle, at several scales."""
    found = []
    for turns in (1, 2):
        circle = np.exp(2j * np.pi * turns * volume / 256)
        for reach in (1.5, 3, 5):
            sigma = reach * min(size) / size.array
            parts = [ndimage.gaussian_filter(part, sigma) for part in (circle.real, circle.imag)]
            found += [np.hypot(*parts), *parts]
    return np.stack(found, axis=-1)


def look(options) -> None:
    """A table: can nuclei be told from the tissue beside them, by a rule learnt on one half?"""
    print(
        "| volume | nuclei | mean grey value of nuclei | of tissue within 1 um | mean step to the "
        "next voxel, nuclei | tissue | bits it tells, nuclei | area under the ROC curve |\n"
        + "|---" * 8
        + "|"
    )
    for name in nuclei_data.VOLUMES:
        volume, labels, size = nuclei_data.read_volume(name, options.data)
        size, inside = VoxelSize.of(size), labels > 0
        far = ndimage.distance_transform_edt(~inside, sampling=tuple(size))
        near = (far <= NEAR_UM) & ~inside
        steps = np.abs(wrapped_steps(volume))
        values = features(volume, size)
        rng, areas = np.random.default_rng(0), []
        places = np.argwhere(inside | near)
        left = places[:, 2] < volume.shape[2] // 2
        halves = [tuple(rng.permutation(places[part])[:30000].T) for part in (left, ~left)]
        for picked in (halves, halves[::-1]):
            model = HistGradientBoostingClassifier(max_iter=80, max_leaf_nodes=15, random_state=0)
            model.fit(values[picked[0]], inside[picked[0]])
            score = model.predict_proba(values[picked[1]])[:, 1]
            areas.append(roc_auc_score(inside[picked[1]], score))
        print(
            f"| {name} | {labels.max()} | {volume[inside].mean():.1f} | {volume[near].mean():.1f} "
            f"| {steps[inside[:, :, 1:]].mean():.1f} | {steps[near[:, :, 1:]].mean():.1f} | "
            f"{information(volume, inside):.3f} | "
            f"{areas[0]:.2f}, {areas[1]:.2f} |",
            flush=True,
        )


def border_share(grey: np.ndarray, objects: np.ndarray) -> float:
    """Where masks end between the surroundings' grey value (0) and the cell's brightest (1).

    The median over objects of more than 50 voxels; a border's grey value is the mean of the voxels
    on its inner and on its outer side.
    """
    mask, names = objects > 0, np.flatnonzero(np.bincount(objects.ravel())[1:] > 50) + 1
    far = ndimage.distance_transform_cdt(~mask, "chessboard")
    surroundings = np.median(grey[(far >= 6) & (far <= 10)])
    brightest = ndimage.maximum(grey, objects, names)
    inner = np.where(ndimage.binary_erosion(mask), 0, objects)
    outer = np.where(mask, 0, ndimage.grey_dilation(objects, size=3))
    border = (ndimage.mean(grey, inner, names) + ndimage.mean(grey, outer, names)) / 2
    return float(np.median((border - surroundings) / (brightest - surroundings)))


def shipped_objects(name: str, options) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Objects of the binary mask, those of the shipped model, and grey values."""
    stain = name.partition("_")[0]
    folder = real_data.DATA
    source = real_data.read_source(name, folder)
    card, network = models.load(f"models/{stain}.safetensors")
    maps = predict_box(network, source, source.region, card.normalisation, "cpu", options.threads)
    joined = cell_map(card.outputs, maps)
    size = VoxelSize.of(source.voxel_size_um)
    detector = CellSettings(**card.detector, threshold=card.threshold)
    cells = cells_of_volume(ArrayVolume(joined), detector, size)
    seeds = Seeds(cells[PLACE].to_numpy(float), cells["id"].to_numpy())
    whole = Box.from_shape(joined.shape)
    chosen = ObjectSettings(threshold=card.threshold, largest_radius_um=card.cell_diameter_um)
    grey = source.volume.read_window(*whole)
    smooth = None
    if options.foreground == "image":
        chosen = dataclasses.replace(chosen, foreground="image", threshold=0.45)
        joined, smooth = of_image(grey, size, chosen)
    found = outline_block(joined, (0, 0, 0), whole, whole, seeds, size, chosen, grey=smooth)
    mask = tifffile.imread(folder / f"{name}_mask.tif") > 0
    # Outside of the regions the ground truth is not complete.
    kept = np.zeros(mask.shape, bool)
    for part in real_data.regions_of(source):
        kept[part.region.slices] = True
    return label(mask & kept, connectivity=3), np.where(kept, found, 0), grey


def masks(options) -> None:
    """Dice of the foreground, and the volumes of cells that are matched by overlap."""
    print(
        "| volume | cells of the mask | found | Dice of the foreground | matched (IoU 0.1) | mean "
        "Dice of these | median volume error | of it, absolute | masks end at |\n"
        + "|---" * 9
        + "|"
    )
    rows = []
    every = [name for names in real_data.VOLUMES.values() for name in names]
    for name in options.volumes or every:
        truth, found, grey = shipped_objects(name, options)
        overlaps = count_overlaps(ArrayVolume(truth), ArrayVolume(found), 512)
        pairs, ratios = match_objects(overlaps, 0.1)
        errors = overlaps.found.counts[pairs[:, 1]] / overlaps.truth.counts[pairs[:, 0]] - 1
        dice = 2 * ((truth > 0) & (found > 0)).sum() / ((truth > 0).sum() + (found > 0).sum())
        rows.append(
            (
                dice,
                f"| {name} | {len(overlaps.truth.labels)} | {len(overlaps.found.labels)} | "
                f"{dice:.3f} | {len(pairs)} | {np.mean(2 * ratios / (1 + ratios)):.3f} | "
                f"{np.median(errors):+.1%} | {np.median(np.abs(errors)):.1%} | "
                f"{border_share(grey.astype(np.float32), truth):.2f} |",
            )
        )
    print("\n".join(text for _, text in sorted(rows)), flush=True)
