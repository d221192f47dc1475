"""Measure how well a threshold of grey values describes the masks of the real volumes.

    python benchmarks/mask_thresholds.py

For every volume, this finds the grey value that best separates the mask from the voxels around it,
and the Dice index of that separation. Then it scores the ground truth of each training volume of
microglia against itself: the components of its mask where it is at least as bright as the threshold
of the held-out volume, against its own centroids. Image, cells and annotator are the same and only
the threshold differs, so a method that cannot know the threshold cannot do better on average.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import left_out
import real_data

from voxmill.cells.components import find_components
from voxmill.volumes.blocks import ArrayVolume

# Least sizes, in voxels, at which components of a mask above a threshold count as cells.
LEAST_VOX = (1, 5, 20)


def read(source) -> tuple[np.ndarray, np.ndarray]:
    """Read grey values and mask, each (z, y, x)."""
    box = (0, 0, 0), source.volume.shape
    return source.volume.read_window(*box), source.mask.read_window(*box) > 0


def best_split(grey, mask) -> tuple[int, float]:
    """Find the grey value with the best Dice index between mask and `grey >= value`.

    Only the mask and the ring of voxels around it in the plane count: bright voxels elsewhere,
    which are not cells, tell nothing about the borders of cells.

    Returns
    -------
    value : int
    dice : float
    """
    near = ndimage.binary_dilation(mask, np.ones((1, 3, 3), bool))
    values, of_mask = grey[near], mask[near]
    order = np.argsort(values, kind="stable")[::-1]
    hits = np.cumsum(of_mask[order])
    dice = 2 * hits / (np.arange(1, len(values) + 1) + hits[-1])
    best = int(np.argmax(dice))
    return int(values[order][best]), float(dice[best])


def centroids(mask, least_vox: int) -> np.ndarray:
    """Find the (N, 3) centroids of a mask's 26-connected components of at least `least_vox`."""
    volume = ArrayVolume(mask)
    regions = find_components(
        lambda box: (volume.read_window(*box), None), mask.shape, max(mask.shape)
    )
    return regions.centroids[regions.counts >= least_vox]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=real_data.DATA)
    options = parser.parse_args()
    splits = {}
    for stain, training in real_data.TRAINING.items():
        for name in (*training, real_data.HELD_OUT[stain]):
            source = real_data.read_source(name, options.data)
            grey, mask = read(source)
            splits[name], dice = best_split(grey, mask)
            percentiles = source.grey.statistics["percentiles"]
            print(
                f"{name:16s} threshold {splits[name]:6d}  Dice {dice:.3f}  mask {mask.mean():.2%}"
                f"  median {percentiles['50']:.0f}  99 % {percentiles['99']:.0f}"
            )
    threshold = splits[real_data.HELD_OUT["microglia"]]
    for name in real_data.TRAINING["microglia"]:
        source = real_data.read_source(name, options.data)
        grey, mask = read(source)
        for least_vox in LEAST_VOX:
            points = centroids(mask & (grey >= threshold), least_vox)
            scores = left_out.scores_of(real_data.truth_of(source), points)
            print(f"{name} at {threshold}, from {least_vox} voxels: {scores}")


if __name__ == "__main__":
    main()
