"""The cost of starting a prediction job, compared with that of its tile.

    python benchmarks/start_up.py

Each job is its own process, as in the workflow. A job with a tile of 8 voxels a side takes hardly
more than its start; the edge of the other tile is `--edge`. Both run with and without an import of
torch, which the native engine does not need. Medians of wall-clock seconds over interleaved runs.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from voxmill.tiles.cut_tiles import cut_tiles
from voxmill.tiles.plan import read_plan
from voxmill.tiles.plan_volume import plan_volume
from voxmill.volumes import write_planes
from voxmill.volumes.measure_volume import measure_volume

ROOT = Path(__file__).resolve().parent.parent
JOB = """
import sys, json
given = json.loads(sys.argv[1])
if given.pop("torch"):
    import torch
from voxmill.prediction.predict_tile import predict_tile
predict_tile(**given)
"""


def prepare(folder: Path, edge: int, halo: int) -> dict:
    """A volume of one tile, its plan and its tile; the arguments of `predict_tile`."""
    folder.mkdir()
    voxels = np.random.default_rng(0).integers(90, 600, (edge,) * 3, dtype=np.uint16)
    volume = {"path": str(folder / "volume.tif")}
    write_planes(folder / "volume.tif", voxels, voxels.shape, np.uint16, (2.5, 1.6, 1.6))
    measure_volume(
        volume=volume,
        output_path=folder / "statistics.json",
        blocks_path=folder / "grey_blocks.npz",
    )
    plan_volume(
        volume=volume, fingerprint="benchmark", tile_shape_vox=(edge,) * 3, halo_vox=(halo,) * 3,
        halo_paths=[], output_path=folder / "plan.json",
    )  # fmt: skip
    name = read_plan(folder / "plan.json").tiles[0].name
    cut_tiles(
        volume=volume, plan_path=folder / "plan.json", tiles=[name], folder=str(folder),
        output_path=str(folder / "tiles.json"), code="benchmark",
    )  # fmt: skip
    (folder / "predictions").mkdir()
    return {
        "tile": name,
        "source": {"folder": str(folder)},
        "plan_path": str(folder / "plan.json"),
        "statistics_path": str(folder / "statistics.json"),
        "output_path": str(folder / "predictions" / f"{name}.tif"),
        "settings": {"device": "cpu"},
        "code": "benchmark",
    }


def run(arguments: dict) -> float:
    """Wall seconds of one job."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", JOB, json.dumps(arguments)],
        check=True, capture_output=True, env=environment,
    )  # fmt: skip
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default=str(ROOT / "models" / "phantom.safetensors"))
    parser.add_argument("--edge", type=int, default=128)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        common = {"weights_path": given.weights, "threads": given.threads}
        tasks = {
            (edge, torch): prepare(Path(folder) / f"{edge}{torch}", edge, 20)
            | common
            | {"torch": torch}
            for edge in (8, given.edge)
            for torch in (False, True)
        }
        seconds = {key: [] for key in tasks}
        for turn in range(given.runs + 1):
            for key, arguments in tasks.items():
                taken = run(arguments)
                if turn:  # the first fills the file cache
                    seconds[key].append(taken)
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    print(f"{given.weights}, {given.threads} threads, median of {given.runs} runs, seconds a job")
    print("| tile | s | s with torch imported |\n|---|---|---|")
    for edge in (8, given.edge):
        print(f"| {edge}³ | {medians[edge, False]:.2f} | {medians[edge, True]:.2f} |")
    shares = [medians[8, t] / medians[given.edge, t] for t in (False, True)]
    print(f"\nStart-up is {shares[0]:.0%} of the tile's job, with torch {shares[1]:.0%}.")


if __name__ == "__main__":
    main()
