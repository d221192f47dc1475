"""What Snakemake takes to plan a volume of many tiles, and to find that nothing is to do.

    python benchmarks/plan_scale.py --folder /data/plan_scale

lays an array of 20480 x 20480 x 20480 voxels without a chunk (Zarr: nothing of it is on the disk)
and plans its 86,400 tiles: a dry run of the empty folder, then one of a folder in which everything
seems to be done, and one after the loss of a tile and of a prediction. The results are a stub:
empty files that `snakemake --touch` takes for made; no voxel is cut or predicted. The touching run
also shows what Snakemake takes for each job. Printed are seconds, CPU seconds and memory.
"""

import argparse
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import yaml
import zarr

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from voxmill.runtime.checked import CHECKSUM, json_checksum
from voxmill.runtime.files import write_text
from voxmill.tiles.batches import Batches, tiles_per_cut, tiles_per_job
from voxmill.tiles.grid import Grid
from voxmill.volumes.pyramid import pyramid_levels

ROOT = Path(__file__).resolve().parent.parent
VOLUME, NETWORK, VOXEL_SIZE_UM = "whole", "phantom", (2.0, 2.0, 2.0)
# Files that the jobs after the predictions make, which no job of the stub does.
LATER = {
    f"results/{VOLUME}": ("plan.json", "statistics.json", "grey_blocks.npz"),
    f"results/{VOLUME}/{NETWORK}": ("seams.json", "cells.csv", "overview.png"),
    f"results/{VOLUME}/{NETWORK}/probability.ome.zarr": ("zarr.json",),
}


def lay_volume(path: Path, shape) -> None:
    """An array of the fill value alone: its metadata, no chunk."""
    if not path.exists():
        zarr.create_array(path, shape=shape, chunks=(64, 64, 64), dtype="uint16", fill_value=0)


def write_config(folder: Path, tile, per_job) -> None:
    """A configuration with the shipped phantom model, a fixed halo and no evaluation."""
    content = {
        "volumes": {
            VOLUME: {
                "path": "volume.zarr",
                "voxel_size_um": list(VOXEL_SIZE_UM),
                "model_voxel_size": "ignore",
            }
        },
        "networks": {NETWORK: {"weights": str(ROOT / "models" / "phantom.safetensors")}},
        "tiles": {"shape_vox": list(tile), "halo_vox": 32, "per_job": per_job},
    }
    write_text(folder / "scale.yaml", yaml.safe_dump(content))


def stub_results(folder: Path, grid: Grid, per_job: int) -> None:
    """STUB: an empty file for each tile, prediction and later product; lists with a checksum."""
    batches, cuts = Batches(grid, per_job), Batches(grid, tiles_per_cut(len(grid), per_job))
    made = folder / "results" / VOLUME
    names = {
        made / "tiles": [f"{tile}.tif" for tile in grid.names],
        made / "batches": [f"{name}.json" for name in cuts.names],
        made / NETWORK / "predictions": [f"{tile}.json" for tile in grid.names],
        made / NETWORK / "slabs": [f"{slab}.json" for slab in grid.slabs],
        **{folder / place: list(files) for place, files in LATER.items()},
    }
    if per_job > 1:
        names[made / NETWORK / "batches"] = [f"{name}.json" for name in batches.names]
    for number, level in enumerate(pyramid_levels(grid.shape, VOXEL_SIZE_UM)[1:], start=1):
        rows = -(-level.shape[0] // grid.tile_shape[0])
        names[made / NETWORK / "levels" / str(number)] = [f"{row}.json" for row in range(rows)]
    depth, height, width = grid.counts
    for z, y in itertools.product(range(depth), range(height)):
        shards = made / NETWORK / f"probability.ome.zarr/0/c/{z}/{y}"
        names[shards] = list(map(str, range(width)))
    for place, files in names.items():
        place.mkdir(parents=True, exist_ok=True)
        for name in files:
            (place / name).touch()
    for place, of in ((made, cuts), (made / NETWORK, batches)):
        for name in of.names if (place / "batches").is_dir() else ():
            (place / "batches" / f"{name}.json").write_text(_list_of(of.tiles(name)))


def _list_of(tiles: Sequence[str]) -> str:
    """A list as a job writes it, which Snakemake's start reads."""
    entry = {"bytes": 10**8, "crc32": 10**9, "tile": "0" * 16, "made_with": "0" * 16}
    content = {"tiles": [{"name": tile} | entry for tile in tiles]}
    return json.dumps(content | {CHECKSUM: json_checksum(content)})


def snakemake(folder: Path, *arguments: str) -> tuple[str, dict[str, float]]:
    """Run Snakemake; what it printed, and its seconds, CPU seconds and largest memory (MB)."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    command += ["--configfile", "scale.yaml", "--cores", "2", *arguments]
    start = time.perf_counter()
    with open(folder / "snakemake.txt", "w+") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        output.seek(0)
        text = output.read()
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{text[-3000:]}")
    cpu = used.ru_utime + used.ru_stime
    return text, {"seconds": seconds, "CPU s": cpu, "MB": used.ru_maxrss / 1024}


def jobs_by_rule(text: str) -> dict[str, int]:
    """Numbers of jobs that Snakemake announced, `total` among them."""
    table = text[text.index("Job stats:") :].split("\n\n")[0]
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}


def measure(folder: Path, shape, tile, per_job, scheduler: str) -> pd.DataFrame:
    """Plan a volume, fill the folder with the stub, and plan again; without a scheduler once."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "results", ignore_errors=True)
    shutil.rmtree(folder / ".snakemake", ignore_errors=True)
    lay_volume(folder / "volume.zarr", shape)
    write_config(folder, tile, per_job)
    grid = Grid(tuple(shape), tuple(tile))
    size = tiles_per_job(len(grid), per_job)
    rows = {}
    text, rows["dry run"] = snakemake(folder, "--dry-run")
    rows["dry run"]["jobs"] = jobs = jobs_by_rule(text)["total"]
    if scheduler == "none":
        return pd.DataFrame(rows).T
    stub_results(folder, grid, size)
    # Not the scheduler by linear programming that is the default: see docs/cluster.md.
    options = ("--scheduler", scheduler, "--scheduler-subsample", "100", "--quiet")
    _, rows["touching run"] = snakemake(folder, "--touch", "--forceall", *options)
    text, rows["nothing to do"] = snakemake(folder, "--dry-run")
    if "Nothing to be done" not in text:
        raise SystemExit(f"expected nothing to do, found:\n{text[-3000:]}")
    (folder / f"results/{VOLUME}/tiles/{grid.name(0)}.tif").unlink()
    (folder / f"results/{VOLUME}/{NETWORK}/predictions/{grid.name(len(grid) - 1)}.json").unlink()
    text, rows["one tile and one prediction lost"] = snakemake(folder, "--dry-run")
    rows["one tile and one prediction lost"]["jobs"] = jobs_by_rule(text)["total"]
    rows["touching run"]["jobs"] = jobs
    spent = rows["touching run"]["CPU s"] - rows["nothing to do"]["CPU s"]
    rows["touching run"]["CPU ms a job"] = 1000 * spent / jobs
    table = pd.DataFrame(rows).T
    table.insert(0, "tiles", len(grid))
    table.insert(1, "tiles a job", size)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="1 GB, 200,000 files")
    parser.add_argument("--volume", type=int, nargs=3, default=(20480, 20480, 20480))
    parser.add_argument("--tile", type=int, nargs=3, default=(512, 456, 427))
    parser.add_argument("--per-job", default="auto", help="auto or a number")
    parser.add_argument(
        "--scheduler", default="greedy", help="greedy, ilp, or none: only a dry run"
    )
    given = parser.parse_args()
    per_job = given.per_job if given.per_job == "auto" else int(given.per_job)
    shapes = tuple(given.volume), tuple(given.tile)
    table = measure(given.folder, *shapes, per_job, given.scheduler)
    print(table.round(1).to_markdown())


if __name__ == "__main__":
    main()
