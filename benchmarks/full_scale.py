"""The whole workflow on a volume as large as the one that voxmill was made for.

    python benchmarks/full_scale.py --folder /data/full_scale

makes a volume of 2304 x 1280 x 1024 voxels (6 GB) out of phantoms of different seeds side by side
(whose light does not fade with depth, for the model knows no depths of a millimetre), runs the
workflow on it with tiles of 768 x 256 x 512 (30 of them), and prints for each kind of job their
number, seconds and largest memory, then how good the cells are. The folder needs 40 GB. Run again,
it goes on where it was.
"""

import argparse
import itertools
import json
import math
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from voxmill.phantoms.make_phantom import PhantomSettings, draw_phantom, write_truth
from voxmill.runtime.files import write_text
from voxmill.volumes import write_planes

ROOT = Path(__file__).resolve().parent.parent
VOXEL_SIZE_UM = (2.5, 1.6, 1.6)
# How the log of a job ends; see `voxmill.runtime.jobs.job`.
DONE = re.compile(r"(\w+) done in ([\d.]+) s, peak memory (\d+) MiB")
FIRST_SEED = 70_000  # none that a model was trained, tuned or judged on


def part_origins(shape, part) -> list[tuple[int, int, int]]:
    """First voxels of the phantoms that make up a volume, in rising z, y, x."""
    if any(n % p for n, p in zip(shape, part, strict=True)):
        raise SystemExit(f"--volume {shape}: expected multiples of --part {part}")
    return list(itertools.product(*(range(0, n, p) for n, p in zip(shape, part, strict=True))))


def make_part(seed: int, shape, attenuation_um: float) -> tuple[np.ndarray, np.ndarray]:
    """One phantom: grey values and cells."""
    settings = {"seed": seed, "shape_vox": shape, "voxel_size_um": VOXEL_SIZE_UM}
    return draw_phantom(PhantomSettings.from_dict({**settings, "attenuation_um": attenuation_um}))


def make_volume(folder: Path, shape, part, attenuation_um: float, processes: int) -> None:
    """Write `volume.tif` and `cells.csv`, one layer of phantoms in memory."""
    origins, cells = part_origins(shape, part), []

    def planes():
        with ProcessPoolExecutor(processes) as pool:
            for _, layer in itertools.groupby(enumerate(origins), lambda item: item[1][0]):
                numbers, places = zip(*layer, strict=True)
                seeds = [FIRST_SEED + number for number in numbers]
                slab = np.empty((part[0], *shape[1:]), np.uint16)
                fixed = itertools.repeat(part), itertools.repeat(attenuation_um)
                parts = pool.map(make_part, seeds, *fixed)
                for origin, (grey, points) in zip(places, parts, strict=True):
                    _, y, x = origin
                    slab[:, y : y + part[1], x : x + part[2]] = grey
                    cells.append(points + origin)
                print(f"made {numbers[-1] + 1} of {len(origins)} phantoms", flush=True)
                yield from slab

    write_planes(folder / "volume.tif", planes(), shape, np.uint16, VOXEL_SIZE_UM)
    write_truth(folder / "cells.csv", np.concatenate(cells))


def write_config(folder: Path, tile, baseline: bool) -> None:
    """A configuration with the shipped phantom model and the defaults of everything else."""
    content = {
        "volumes": {
            "full": {
                "path": "volume.tif",
                "truth": {"path": "cells.csv", "kind": "points"},
            }
        },
        "networks": {"phantom": {"weights": str(ROOT / "models" / "phantom.safetensors")}},
        "tiles": {"shape_vox": list(tile)},
        "evaluation": {"baseline": baseline},
    }
    write_text(folder / "full.yaml", yaml.safe_dump(content))


def run_workflow(folder: Path, cores: int) -> float:
    """Seconds of `snakemake`."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    command += ["--configfile", "full.yaml", "--cores", str(cores), "--rerun-incomplete"]
    start = time.perf_counter()
    # The workflow's scripts run with the `python` of the path.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, cwd=folder, check=True, env=os.environ | {"PATH": path})
    return time.perf_counter() - start


def job_table(folder: Path) -> pd.DataFrame:
    """Number, seconds and largest memory of each kind of job, from the last line of the logs."""
    rows = []
    for path in sorted((folder / "logs").rglob("*.log")):
        for name, seconds, mib in DONE.findall(path.read_text()):
            rows.append({"job": name, "seconds": float(seconds), "gb": int(mib) * 2**20 / 1e9})
    if not rows:
        raise SystemExit(f"{folder}/logs: no job's log says that it is done")
    by_job = pd.DataFrame(rows).groupby("job")
    table = pd.DataFrame(
        {
            "jobs": by_job["seconds"].size(),
            "seconds": by_job["seconds"].sum().round(1),
            "longest, s": by_job["seconds"].max().round(1),
            "peak memory, GB": by_job["gb"].max().round(2),
        }
    )
    return table.sort_values("seconds", ascending=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="40 GB of space for everything")
    parser.add_argument("--volume", type=int, nargs=3, default=(2304, 1280, 1024))
    parser.add_argument("--part", type=int, nargs=3, default=(576, 320, 256), help="one phantom")
    parser.add_argument("--tile", type=int, nargs=3, default=(768, 256, 512))
    parser.add_argument("--attenuation-um", type=float, default=1e6, help="depth of 1/e of light")
    parser.add_argument("--baseline", action="store_true", help="difference of Gaussians as well")
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if not (given.folder / "cells.csv").exists():
        shapes = tuple(given.volume), tuple(given.part)
        make_volume(given.folder, *shapes, given.attenuation_um, given.cores)
    write_config(given.folder, given.tile, given.baseline)
    seconds = run_workflow(given.folder, given.cores)
    print(job_table(given.folder).reset_index().to_markdown(index=False))
    print(f"{seconds:.0f} s, {math.prod(given.volume) / seconds / 1e6:.2f} Mvoxel/s")
    results = given.folder / "results" / "full" / "phantom"
    for name, keys in (
        ("evaluation", ("n_truth", "n_found", "f1", "precision", "recall")),
        ("seams", ("halo_vox", "cells", "largest", "mean", "gained", "lost")),
    ):
        report = json.loads((results / f"{name}.json").read_text())
        print(name, {key: report[key] for key in keys})


if __name__ == "__main__":
    main()
