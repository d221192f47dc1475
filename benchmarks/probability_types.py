"""What the type of stored probabilities costs and changes: bytes, and cells against float32.

    python benchmarks/probability_types.py --output results/benchmarks

The demo's phantom and, where ../shared/data has them, the held-out microglia and c-Fos volumes are
predicted by the shipped models. Each prediction is stored in each type, as the workflow stores it,
and read again by the detector. Cells gained and lost have no partner within half the least distance
of two cells. Writes probability_types.json and .md.
"""

import argparse
import dataclasses
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import real_data
import yaml

from voxmill.cells.find_cells import cells_of_volume
from voxmill.config.cells import CellSettings
from voxmill.config.phantoms import PhantomSettings
from voxmill.config.prediction import PredictionSettings
from voxmill.evaluation.matching import match_points
from voxmill.geometry import Box
from voxmill.networks import models
from voxmill.phantoms.make_phantom import draw_phantom
from voxmill.prediction.volume_predictor import VolumePredictor
from voxmill.runtime.files import write_json, write_text
from voxmill.volumes.blocks import ArrayVolume
from voxmill.volumes.measure_volume import PERCENTILES
from voxmill.volumes.probability import DTYPES, open_stored, to_stored
from voxmill.volumes.sharded import ShardedArray

ROOT = Path(__file__).resolve().parent.parent


def phantom() -> tuple:
    """The volume, the voxel size and the detector of the demo."""
    demo = yaml.safe_load((ROOT / "config.yaml").read_text())
    settings = PhantomSettings.from_dict(demo["volumes"]["demo"]["phantom"])
    cells = demo["cells"] | {"method": "maxima"}
    return draw_phantom(settings)[0], settings.voxel_size_um, cells


def recorded(stain: str) -> tuple:
    """The held-out volume of a stain; its detector is that of the model's card."""
    source = real_data.read_source(real_data.HELD_OUT[stain], real_data.DATA)
    return source.volume.array, source.voxel_size_um, None


def predicted(model: str, voxels: np.ndarray, threads: int) -> tuple:
    """The card, and the probability of a whole volume."""
    card, network = models.load(ROOT / "models" / f"{model}.safetensors")
    values = np.percentile(voxels, PERCENTILES)
    percentiles = {f"{p:g}": float(v) for p, v in zip(PERCENTILES, values, strict=True)}
    predictor = VolumePredictor(
        card, network, ArrayVolume(voxels), {"percentiles": percentiles},
        PredictionSettings(device="cpu"), threads,
    )  # fmt: skip
    return card, predictor.predict(Box.from_shape(voxels.shape), 0)


def store(folder: Path, probability: np.ndarray, dtype: str, compression: str) -> int:
    """Store a probability in shards; returns their bytes."""
    array = ShardedArray.of_cores(folder, probability.shape, dtype, (256, 256, 256), compression)
    stored = to_stored(probability, dtype)
    array.write_metadata()
    return sum(
        array.write_shard(index, stored[array.box(index).slices]).bytes
        for row in range(array.shards[0])
        for index in array.indices(row)
    )


def judge(name: str, probability: np.ndarray, settings: CellSettings, size_um) -> list[dict]:
    """One row for each type."""
    rows, reference = [], None
    for dtype in reversed(DTYPES):
        with tempfile.TemporaryDirectory() as scratch:
            size = store(Path(scratch, "p.zarr"), probability, dtype, "zstd")
            with open_stored(Path(scratch, "p.zarr")) as volume:
                table = cells_of_volume(volume, settings, size_um)
        cells = table[["z_vox", "y_vox", "x_vox"]].to_numpy()
        reference = cells if reference is None else reference
        pairs = match_points(reference, cells, settings.min_distance_um / 2, size_um)
        shift = (reference[pairs[:, 0]] - cells[pairs[:, 1]]) * np.array(size_um)
        rows.append(
            {
                "volume": name,
                "dtype": dtype,
                "bytes_a_voxel": round(size / probability.size, 4),
                "smaller": round(4 * probability.size / size, 1),
                "cells": len(cells),
                "gained": len(cells) - len(pairs),
                "lost": len(reference) - len(pairs),
                "median_shift_um": round(float(np.median(np.linalg.norm(shift, axis=1))), 5),
            }
        )
        print(rows[-1], flush=True)
    return rows


def table_of(rows: list[dict]) -> str:
    """The rows as Markdown."""
    lines = [
        "| volume | type | bytes a voxel | smaller than raw float32 | cells | gained | lost "
        "| median shift, um |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    volumes = {"phantom": phantom()}
    if real_data.DATA.is_dir():
        volumes |= {stain: recorded(stain) for stain in real_data.HELD_OUT}
    rows = []
    for model, (voxels, size_um, detector) in volumes.items():
        card, probability = predicted(model, voxels, options.threads)
        detector = (detector or card.detector) | {"threshold": card.threshold}
        settings = CellSettings.from_dict(
            {
                f.name: detector[f.name]
                for f in dataclasses.fields(CellSettings)
                if f.name in detector
            }
        )
        rows += judge(model, probability, settings, size_um)
    options.output.mkdir(parents=True, exist_ok=True)
    write_json(options.output / "probability_types.json", rows)
    write_text(options.output / "probability_types.md", table_of(rows))


if __name__ == "__main__":
    main()
