"""Jobs that read the stored probability hold blocks of it, on a volume ten times their limit."""

import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT_MIB = 128

# What is imported and warmed up before the peak is set back is not the work's.
PREAMBLE = """
import os, resource, sys
from pathlib import Path
import numpy as np
from voxmill.cells.find_cells import find_cells
from voxmill.evaluation.draw_overview import draw_overview
from voxmill.tiles.build_level import build_level
from voxmill.tiles.plan import Plan, PlannedVolume, write_plan
from voxmill.tiles.predicted import PlannedImage, write_row_manifest
from voxmill.volumes.multiscale import write_image
from voxmill.volumes.probability import Probabilities

MIB = 2**20
EDGE, CORE = 1134, 126
STORAGE = {"dtype": "uint8", "compression": "none"}
os.chdir(sys.argv[1])


def make_image(edge, path):
    '''An image of edge^3 voxels; shards without cells are one file under many names.'''
    volume = PlannedVolume((edge,) * 3, "uint8", (2.0, 2.0, 2.0))
    plan = Plan(volume, "f", (CORE,) * 3, (0, 0, 0))
    write_plan(f"{path}.json", plan)
    image = PlannedImage.planned(path, plan, STORAGE)
    array, rows = image.arrays[0], {}
    grid = np.indices(array.shard_vox) - CORE // 2
    blob = (250 * np.exp(-(grid**2).sum(axis=0) / 8)).astype(np.uint8)
    first = None
    for row in range(array.shards[0]):
        for index in array.indices(row):
            shape = array.box(index).shape
            whole, file = shape == array.shard_vox, Path(path, "0", "c", *map(str, index))
            if first and whole and len(set(index)) > 1:
                file.parent.mkdir(parents=True, exist_ok=True)
                os.link(Path(path, "0", first.key), file)
                stored = first
            else:
                voxels = np.full(shape, 30, np.uint8)
                if whole and len(set(index)) == 1 and row:
                    voxels = np.maximum(blob, voxels)
                stored = array.write_shard(index, voxels)
                first = first or stored
            rows.setdefault(row, []).append(stored)
    return plan, image, rows


def finish(path, plan, image, rows):
    for row, shards in rows.items():
        write_row_manifest(f"{path}.{row}.json", image.arrays[0], shards)
    channel = {"label": "p", "window": {"min": 0, "max": 255, "start": 0, "end": 255}}
    write_image(path, image.arrays[:1], image.levels[:1], (2.0, 2.0, 2.0), "n", channel, "mean", {})


def resident(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))


def cells(path):
    settings = {"min_distance_um": 6, "smoothing_um": 2, "block_vox": 96}
    find_cells(
        probability_path=f"{path}/zarr.json", output_path=f"{path}.csv", settings=settings,
        voxel_size_um=(2.0, 2.0, 2.0), threads=2,
    )


def level(path):
    build_level(
        plan_path=f"{path}.json", manifest_paths=[f"{path}.0.json", f"{path}.1.json"],
        image_path=path, storage=STORAGE, level=1, row=0, output_path=f"{path}.level.json",
    )


def mode(path):
    build_level(
        plan_path=f"{path}.json", manifest_paths=[f"{path}.0.json", f"{path}.1.json"],
        image_path=path, storage=STORAGE, level=1, row=0, output_path=f"{path}.level.json",
        how="mode",
    )


def overview(path):
    # What is shown is 512 voxels a side at most, in both images.
    Path(f"{path}.csv").write_text("z_vox,y_vox,x_vox\\n250,250,250\\n")
    draw_overview(
        volume={"path": path}, probability_path=path, cells_path=f"{path}.csv",
        matches_path=None, output_path=f"{path}.png",
    )


def windows(path):
    with Probabilities(path) as volume:
        for start in range(0, volume.shape[2] - 90, 90):
            volume.read_window((start, 0, start), (start + 90, 90, start + 90))
"""


def run(code):
    # Not pytest's tmp_path, which would keep the files for three runs.
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", PREAMBLE + textwrap.dedent(code), folder], cwd=folder,
            capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.parametrize("job", ["cells", "level", "mode", "overview", "windows"])
def test_the_peak_is_that_of_a_block(job):
    edge = 514 if job == "overview" else 258
    said = run(
        f"""
        small = make_image({edge}, "small.ome.zarr")
        finish("small.ome.zarr", *small)
        {job}("small.ome.zarr")
        large = make_image(EDGE, "large.ome.zarr")
        finish("large.ome.zarr", *large)
        Path("/proc/self/clear_refs").write_text("5")
        before = resident("VmRSS")
        {job}("large.ome.zarr")
        print(EDGE**3 / MIB, resident("VmHWM") - before)
        """
    )
    volume_mib, grown_mib = map(float, said.split())
    assert volume_mib >= 10 * LIMIT_MIB
    assert grown_mib <= LIMIT_MIB


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_a_job_that_held_the_volume_would_be_seen():
    """Without this the test above could not fail."""
    said = run(
        """
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        np.ones((200, 1024, 1024), np.uint8)
        print(resident("VmHWM") - before)
        """
    )
    assert float(said) > 190
