"""The main job from end to end, and what a second run does."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import tifffile

from tests.workflow.conftest import (
    CELLS,
    ROOT,
    SHAPE,
    SIZE_UM,
    flip_a_bit,
    make_project,
    make_volume,
    read_probability,
    shard_of,
)
from voxmill.volumes import read_header

TILES = ["z0000_y0000_x0000", "z0000_y0000_x0012", "z0000_y0010_x0000", "z0000_y0010_x0012"]
AFTER_PREDICTION = {"check_slab": 1, "stitch_volume": 1}
AFTER_STITCHING = {
    "find_cells": 1,
    "measure_seams": 1,
    "evaluate_cells": 1,
    "draw_mistakes": 1,
    "draw_overview": 1,
    "compare_methods": 1,
}


def same_files(a, b):
    return a.read_bytes() == b.read_bytes()


def test_probability_is_that_of_the_whole_volume(finished):
    volume = make_volume().astype(np.float64)
    low, high = np.percentile(volume, (5, 99.9))
    expected = 1 / (1 + np.exp(4 - 8 * np.clip((volume - low) / (high - low), -10, 10)))
    found = read_probability(finished.path("v/identity"))
    assert found.shape == SHAPE
    np.testing.assert_allclose(found, expected, atol=0.5 / 255 + 2e-6)


def test_stitched_volume_opens_calibrated(finished):
    header = read_header(finished.path("v/identity/probability.ome.zarr"))
    assert (header.format, header.shape, header.dtype) == ("OME-Zarr 0.5", SHAPE, "uint16")
    assert header.voxel_size_um == SIZE_UM


def test_cells_are_the_true_ones_in_absolute_coordinates(finished):
    cells = pd.read_csv(finished.path("v/identity/cells.csv"))
    found = cells[["z_vox", "y_vox", "x_vox"]].to_numpy()
    assert sorted(map(tuple, np.rint(found).astype(int).tolist())) == sorted(CELLS)
    np.testing.assert_allclose(found, np.rint(found), atol=0.05)
    np.testing.assert_allclose(cells[["z_um", "y_um", "x_um"]], found * SIZE_UM, atol=1e-3)
    evaluation = json.loads(finished.path("v/identity/evaluation.json").read_text())
    assert evaluation["f1"] == 1.0
    assert evaluation["n_truth"] == len(CELLS)


def test_every_tile_is_a_file_named_by_its_origin(finished):
    for folder in ("v/tiles", "v/identity/predictions"):
        assert sorted(p.stem for p in finished.path(folder).iterdir()) == TILES
    shards = {shard_of(finished.path("v/identity"), tile) for tile in TILES}
    assert set(finished.path("v/identity/probability.ome.zarr/0/c").glob("*/*/*")) == shards
    for tile in TILES:
        known = json.loads(finished.path(f"v/identity/predictions/{tile}.json").read_text())
        stored = shard_of(finished.path("v/identity"), tile).read_bytes()
        assert known["shard"]["bytes"] == len(stored)
        assert known["shard"]["sha256"] == hashlib.sha256(stored).hexdigest()
        assert known["identity"]["numbers"] == "float32"


def test_every_job_logs_what_it_did(finished):
    text = (finished.folder / f"logs/v/identity/predict_tile/{TILES[0]}.log").read_text()
    for expected in ("voxmill 0.", "numpy ", "torch ", "Mvoxel/s", "done in", "backend"):
        assert expected in text
    for log in (finished.folder / "logs").rglob("*.log"):
        assert re.search(r"done in [\d.]+ s, peak memory \d+ MiB", log.read_text()), log
    # Nothing else says the same once more.
    assert not list((finished.folder / "logs").rglob("*.tsv"))


def test_a_touched_or_copied_volume_reruns_nothing(project):
    os.utime(project.folder / "v.tif")
    assert project.jobs() == {}


def test_a_deleted_tile_is_remade_alone_with_what_depends_on_it(project, finished):
    victim = f"v/tiles/{TILES[1]}.tif"
    project.path(victim).unlink()
    expected = {"all": 1, "cut_tiles": 1, "predict_tile": 1, **AFTER_PREDICTION, **AFTER_STITCHING}
    assert project.jobs() == expected
    project.snakemake()
    for name in (victim, f"v/identity/predictions/{TILES[1]}.json", "v/identity/cells.csv"):
        assert same_files(project.path(name), finished.path(name)), name
    assert project.jobs() == {}


def test_a_deleted_prediction_is_remade_alone(project, finished):
    again = {"predict_tile": 1, **AFTER_PREDICTION}
    # Of what lies before a whole file a loss is seen where it is a target itself.
    targets = ("predict", "stitch")
    project.path(f"v/identity/predictions/{TILES[2]}.json").unlink()
    assert project.jobs() == {"all": 1, **again, **AFTER_STITCHING}
    project.snakemake(*targets)
    victim = shard_of(project.path("v/identity"), TILES[1])
    victim.unlink()
    assert project.jobs(*targets) == {"predict": 1, "stitch": 1, **again}
    # An image that lacks a shard does not look whole.
    assert not project.path("v/identity/probability.ome.zarr/zarr.json").exists()
    project.snakemake(*targets)
    assert same_files(victim, shard_of(finished.path("v/identity"), TILES[1]))
    assert project.jobs(*targets) == {}


def test_whole_predictions_of_the_same_identity_are_kept_by_a_rerun(project):
    shards = [shard_of(project.path("v/identity"), tile) for tile in TILES]
    dates = [path.stat().st_mtime_ns for path in shards]
    flip_a_bit(shards[1])
    project.snakemake("--forcerun", "predict_tile", "--", "predict")
    log = project.folder / "logs/v/identity/predict_tile"
    assert "1 of 1 tiles are predicted already" in (log / f"{TILES[0]}.log").read_text()
    assert "0 of 1 tiles are predicted already" in (log / f"{TILES[1]}.log").read_text()
    kept = [path.stat().st_mtime_ns == date for path, date in zip(shards, dates, strict=True)]
    assert kept == [True, False, True, True]
    project.snakemake("stitch")
    assert project.jobs("stitch") == {}


def test_a_large_volume_gets_levels_and_an_ome_tiff_on_demand(tmp_path):
    project = make_project(tmp_path / "long")
    volume = np.concatenate([make_volume()] * 12, axis=2)
    tifffile.imwrite(project.folder / "v.tif", volume)
    project.configure(
        tiles={"shape_vox": [12, 20, 100]},
        stitching={"formats": ["ome-zarr", "ome-tiff"]},
    )
    project.snakemake("stitch")
    whole, half = (read_probability(project.path("v/identity"), level) for level in (0, 1))
    assert (whole.shape, half.shape) == ((12, 20, 288), (12, 10, 144))
    expected = whole.reshape(12, 10, 2, 144, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(half, expected, atol=1 / 65535)
    found = tifffile.imread(project.path("v/identity/probability.ome.tif"))
    np.testing.assert_array_equal(found / np.float32(65535), whole)
    # In the second half of the volume the cells are those of the first.
    np.testing.assert_allclose(whole[:, :, 24:48], whole[:, :, 240:264], atol=1e-4)
    assert project.jobs("stitch") == {}


def test_a_changed_matching_distance_reruns_the_evaluation_alone(project):
    project.configure(evaluation={"max_distance_um": 1.5, "baseline": False})
    jobs = project.jobs("evaluate")
    assert jobs == {"evaluate": 1, "evaluate_cells": 1}


def test_flips_predict_all_tiles_anew(project):
    project.configure(prediction={"flips": True})
    assert project.jobs("predict") == {"predict": 1, "predict_tile": len(TILES)}


def test_a_changed_tile_shape_does_not_mix_old_tiles_with_new(project, finished):
    project.configure(tiles={"shape_vox": [12, 20, 12]})
    jobs = project.jobs()
    assert jobs["cut_tiles"] == jobs["predict_tile"] == 2
    project.snakemake("cells")
    manifest = json.loads(project.path("v/identity/slabs/z0000.json").read_text())
    keys = ["c/0/0/0", "c/0/0/1"]
    assert [shard["key"] for shard in manifest["shards"]] == keys
    # Shards of the old grid are gone.
    folder = project.path("v/identity/probability.ome.zarr/0")
    assert sorted(p.relative_to(folder).as_posix() for p in folder.glob("c/*/*/*")) == keys
    np.testing.assert_allclose(
        read_probability(project.path("v/identity")),
        read_probability(finished.path("v/identity")), atol=1e-6,
    )  # fmt: skip
    pd.testing.assert_frame_equal(
        pd.read_csv(project.path("v/identity/cells.csv")),
        pd.read_csv(finished.path("v/identity/cells.csv")),
        atol=1e-4,
    )


def test_targets_by_name(project):
    assert project.jobs("tiles", "predict", "stitch", "cells", "evaluate") == {}
    assert project.jobs("--forcerun", "stitch_volume", "--", "stitch") == {
        "stitch": 1,
        "stitch_volume": 1,
    }


def test_dag_and_rulegraph_show_every_job_of_a_new_run(tmp_path):
    project = make_project(tmp_path / "new")
    dag = project.snakemake("--dag", "dot", "--", "predict")
    assert "digraph" in dag
    assert dag.count("predict_tile") == 4
    assert "check_ground_truth" in project.snakemake("--rulegraph", "dot")
    assert project.jobs()["cut_tiles"] == 4


def test_report_holds_the_figures(project):
    project.snakemake("--report", "report.html")
    page = (project.folder / "report.html").read_text()
    assert "overview.png" in page
    assert "comparison.html" in page


@pytest.mark.slow  # tests/faults stops runs in more ways
def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, finished):
    project = make_project(tmp_path / "interrupted")
    process = project.start("predict")
    first = project.path("v/tiles")
    while len(list(first.glob("z*.tif"))) < 3:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)  # waiting for the run's third tile
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode != 0
    kept = {p: p.stat().st_mtime_ns for p in first.glob("z*.tif")}
    project.snakemake("--rerun-incomplete")
    # Two jobs at most were under way; what was finished before is kept.
    assert sum(p.stat().st_mtime_ns != t for p, t in kept.items()) <= 2
    assert sum(p.stat().st_mtime_ns == t for p, t in kept.items()) >= 1
    assert same_files(project.path("v/identity/cells.csv"), finished.path("v/identity/cells.csv"))


def test_lint_is_clean():
    run = subprocess.run(
        [sys.executable, "-m", "snakemake", "--lint"], cwd=ROOT, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
