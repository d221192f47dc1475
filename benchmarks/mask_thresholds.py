"""How far the masks of the real volumes are grey values above a threshold, and what that costs.

    python benchmarks/mask_thresholds.py

For every volume: the grey value that separates the mask from the voxels around it best, and the
Dice index of that separation. Then, of each training volume of microglia, the truth against
itself: the components of its mask where it is at least as bright as the threshold of the volume
held out, scored against its own centroids. The image, the cells and the annotator are the same,
the threshold alone is another; a method that can't know the threshold can't be expected to do
better on average.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import accuracy
import real_data

from voxmill.cells.components import find_components
from voxmill.volumes.blocks import ArrayVolume

# The least components, in voxels, that count as cells of a mask cut at another threshold.
LEAST_VOX = (1, 5, 20)


def read(source) -> tuple[np.ndarray, np.ndarray]:
    """Grey values and mask, each (z, y, x)."""
    box = (0, 0, 0), source.volume.shape
    return source.volume.read_window(*box), source.mask.read_window(*box) > 0


def best_split(grey, mask) -> tuple[int, float]:
    """The grey value with the best Dice index between mask and `grey >= value`, and that index.

    Counted are the mask and the ring of voxels around it in the plane: what is bright elsewhere,
    and was left out as no cell, says nothing about where cells end.
    """
    near = ndimage.binary_dilation(mask, np.ones((1, 3, 3), bool))
    values, of_mask = grey[near], mask[near]
    order = np.argsort(values, kind="stable")[::-1]
    hits = np.cumsum(of_mask[order])
    dice = 2 * hits / (np.arange(1, len(values) + 1) + hits[-1])
    best = int(np.argmax(dice))
    return int(values[order][best]), float(dice[best])


def centroids(mask, least_vox: int) -> np.ndarray:
    """(N, 3) centroids of a mask's 26-connected components of at least so many voxels."""
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
            percentiles = source.statistics["percentiles"]
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
            scores = accuracy.scores_of(source, points, real_data.MATCH_VOX["microglia"])
            print(f"{name} at {threshold}, from {least_vox} voxels: {scores}")


if __name__ == "__main__":
    main()
