"""What a voxel size other than the model's costs, as it is and resampled to the model's.

    python benchmarks/voxel_size.py

Phantoms of the same extent, of one seed for each voxel size, are predicted with
models/phantom.safetensors (2.5 x 1.6 x 1.6 um) as whole volumes, read as they are
(`model_voxel_size: ignore`) or at the model's voxel size (`rescale`). Cells are found with the
model's threshold and detector, and compared in the file's voxels. Then the rate of resampling
alone, from a volume in the page cache, in CPU seconds of one thread.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from voxmill.cells.find_cells import cells_of_volume
from voxmill.cells.table import PLACE, in_file
from voxmill.config.cells import CellSettings
from voxmill.config.phantoms import PhantomSettings
from voxmill.config.prediction import PredictionSettings
from voxmill.evaluation.matching import match_points
from voxmill.evaluation.metrics import scores_of
from voxmill.geometry import Box, VoxelSize
from voxmill.networks import models
from voxmill.phantoms.make_phantom import draw_phantom
from voxmill.prediction.volume_predictor import VolumePredictor
from voxmill.volumes import open_volume, read_header, write_planes
from voxmill.volumes.blocks import ArrayVolume
from voxmill.volumes.measure_volume import measure_grey_values

ROOT = Path(__file__).resolve().parent.parent
MATCH_UM = 6.0
DETECTOR = {"method": "maxima", "min_distance_um": 6.0, "smoothing_um": 1.0}


def cells_of(path: Path, weights: Path, resampled_um, threads: int) -> np.ndarray:
    """Cells of a volume in the file's voxels."""
    card, network = models.load_stored(weights)
    header = read_header(path, resampled_um=resampled_um)
    settings = PredictionSettings(device="cpu")
    with open_volume(header) as volume:
        normalise = measure_grey_values(header).normaliser(card.normalisation)
        predictor = VolumePredictor(card, network, volume, normalise, settings, threads)
        probability = predictor.predict(Box.from_shape(header.shape), 0)
    detector = CellSettings.from_dict((card.detector or DETECTOR) | {"threshold": card.threshold})
    size = VoxelSize.of(header.voxel_size_um)
    found = cells_of_volume(ArrayVolume(probability), detector, size, threads)
    return in_file(found, (0, 0, 0), size, header.resampling)[PLACE].to_numpy()


def judge(factor: float, seed: int, options: argparse.Namespace) -> None:
    """Print a row of the table for phantoms whose voxels are `factor` times the model's."""
    model_um = models.read_card(options.weights).voxel_size_um
    own_um = tuple(factor * edge for edge in model_um)
    shape = tuple(round(n / factor) for n in options.shape)
    content = {"shape_vox": shape, "voxel_size_um": own_um, "seed": seed}
    array, truth = draw_phantom(PhantomSettings.from_dict(content))
    texts = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v.tif"
        write_planes(path, array, array.shape, array.dtype, own_um)
        for target in (None, model_um):
            found = cells_of(path, options.weights, target, options.threads)
            pairs = match_points(truth, found, MATCH_UM, own_um)
            tp = len(pairs)
            scores = scores_of(tp, len(found) - tp, len(truth) - tp)
            apart_um = (truth[pairs[:, 0]] - found[pairs[:, 1]]) * own_um
            error = np.sqrt((apart_um**2).sum(axis=1)).mean() if tp else np.nan
            texts.append(f"{scores['f1']:.3f} | {scores['recall']:.3f} | {error:.2f}")
    edges = " x ".join(f"{edge:g}" for edge in own_um)
    print(f"| {edges} | {len(truth)} | {texts[0]} | {texts[1]} |", flush=True)


def rate(factor: float) -> None:
    """Print how fast new voxels are made of a volume in memory."""
    array = np.random.default_rng(0).integers(0, 4000, (256, 256, 256)).astype(np.uint16)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v.tif"
        write_planes(path, array, array.shape, array.dtype, (1, 1, 1))
        with open_volume(read_header(path, resampled_um=(factor,) * 3)) as volume:
            shape = tuple(min(n, 256) for n in volume.shape)
            start = time.process_time()
            volume.read_window((0, 0, 0), shape)
            seconds = time.process_time() - start
    made = np.prod(shape) / seconds / 1e6
    print(f"| {factor:g} | {made:.0f} | {made * factor**3:.0f} |", flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=ROOT / "models" / "phantom.safetensors")
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 160, 160), help="at factor 1")
    parser.add_argument("--factors", type=float, nargs="+", default=(0.5, 0.75, 1, 1.5, 2))
    parser.add_argument("--seed", type=int, default=3001)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    columns = [f"{what}, {how}" for how in ("as it is", "resampled") for what in _WHAT]
    print("| voxels (um) | cells | " + " | ".join(columns) + " |\n" + "|---" * 8 + "|")
    for index, factor in enumerate(options.factors):
        judge(factor, options.seed + index, options)
    print("\n| edge | new, Mvoxel/s | file's, Mvoxel/s |\n|---|---|---|")
    for factor in options.factors:
        rate(factor)


_WHAT = ("F1", "recall", "error (um)")

if __name__ == "__main__":
    main()
