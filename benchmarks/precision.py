"""What reduced precision changes: probabilities and cells against float32, on fresh phantoms.

    python benchmarks/precision.py --output results/benchmarks

The cells of the shipped model in float32 stand for the truth; a reduced precision that finds the
same ones within half a cell diameter has an F1 of 1. Writes precision.json and precision.md.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from voxmill.cells.find_cells import CellSettings, cells_of_volume
from voxmill.engine.backends import BACKENDS, forward
from voxmill.evaluation.matching import match_points
from voxmill.networks import models
from voxmill.phantoms.make_phantom import PhantomSettings, draw_phantom
from voxmill.runtime.files import write_json, write_text
from voxmill.volumes.blocks import ArrayVolume
from voxmill.volumes.measure_volume import PERCENTILES
from voxmill.volumes.normalisation import normalise

ROOT = Path(__file__).resolve().parent.parent
F1_LIMIT = 0.999


def reduced(network, device: str = "cpu") -> list[tuple[str, str]]:
    """Backends and precisions below float32 that run here."""
    return [
        (backend.name, precision)
        for backend in BACKENDS.values()
        for precision in backend.precisions
        if precision != "float32" and backend.available(network, device) is None
    ]


def read_phantom(phantom: PhantomSettings, card) -> np.ndarray:
    """A normalised phantom, as a job sees it."""
    volume, _ = draw_phantom(phantom)
    values = np.percentile(volume, PERCENTILES)
    percentiles = {f"{p:g}": float(v) for p, v in zip(PERCENTILES, values, strict=True)}
    return normalise(volume, {"percentiles": percentiles}, card.normalisation)


def compare(reference, found, card, voxel_size_um) -> dict:
    """Differences of two probability volumes, and of their cells.

    Parameters
    ----------
    reference, found : (z, y, x) float32 array
    card : ModelCard
        Its threshold and cell diameter find the cells.
    voxel_size_um : (3,) float

    Returns
    -------
    dict
        `largest`, `mean` difference, numbers of `cells`, of `found` ones and of `pairs`, `f1`.
    """
    detector = CellSettings(
        method="maxima", threshold=card.threshold, min_distance_um=card.cell_diameter_um / 2,
        smoothing_um=1.0, min_volume_um3=0.0,
    )  # fmt: skip
    tables = [
        cells_of_volume(ArrayVolume(p), detector, voxel_size_um)[["z_vox", "y_vox", "x_vox"]]
        for p in (reference, found)
    ]
    points = [table.to_numpy() for table in tables]
    pairs = len(match_points(*points, card.cell_diameter_um / 2, voxel_size_um))
    total = len(points[0]) + len(points[1])
    difference = np.abs(found - reference)
    return {
        "largest": float(difference.max()),
        "mean": float(difference.mean(dtype=np.float64)),
        "cells": len(points[0]),
        "found": len(points[1]),
        "pairs": pairs,
        "f1": 2 * pairs / total if total else 1.0,
    }


def judge(model, seeds, shape_vox, threads: int) -> list[dict]:
    """A row for each seed, backend and precision."""
    card, network = models.load(model)
    rows = []
    for seed in seeds:
        phantom = PhantomSettings(seed=seed, shape_vox=shape_vox)
        voxels = read_phantom(phantom, card)[None]
        reference = forward(network, voxels, "auto", "cpu", "float32", threads)[0]
        for backend, precision in reduced(network):
            found = forward(network, voxels, backend, "cpu", precision, threads)[0]
            row = {"seed": seed, "backend": backend, "precision": precision}
            rows.append(row | compare(reference, found, card, phantom.voxel_size_um))
            print(rows[-1], flush=True)
    return rows


def table(rows: list[dict]) -> str:
    """All seeds together for each backend and precision, in markdown."""
    lines = ["| backend | precision | largest | mean | cells | found | F1 |", "|" + "---|" * 7]
    for key in dict.fromkeys((row["backend"], row["precision"]) for row in rows):
        own = [row for row in rows if (row["backend"], row["precision"]) == key]
        cells, found, pairs = (sum(r[k] for r in own) for k in ("cells", "found", "pairs"))
        f1 = 2 * pairs / (cells + found) if cells + found else 1.0
        largest, mean = max(r["largest"] for r in own), np.mean([r["mean"] for r in own])
        short = "" if f1 >= F1_LIMIT else f" (below {F1_LIMIT})"
        cells = f"{largest:.2g} | {mean:.1e} | {cells} | {found} | {f1:.5f}{short}"
        lines.append(f"| {key[0]} | {key[1]} | {cells} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Compare, then write precision.json and precision.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--model", default=str(ROOT / "models" / "phantom.safetensors"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(7001, 7007)))
    parser.add_argument("--shape", type=int, nargs=3, default=list(PhantomSettings().shape_vox))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    rows = judge(given.model, given.seeds, tuple(given.shape), given.threads)
    write_json(given.output / "precision.json", {"rows": rows})
    write_text(given.output / "precision.md", table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
