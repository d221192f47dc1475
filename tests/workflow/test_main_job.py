"""The main job from end to end, and what a second run does."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import tifffile

from tests.workflow.conftest import CELLS, ROOT, SHAPE, SIZE_UM, make_project, make_volume

TILES = ["z0000_y0000_x0000", "z0000_y0000_x0012", "z0000_y0010_x0000", "z0000_y0010_x0012"]
AFTER_PREDICTION = {"check_slab": 1, "stitch_volume": 1}
AFTER_STITCHING = {
    "find_cells": 1,
    "measure_seams": 1,
    "evaluate_cells": 1,
    "draw_overview": 1,
    "compare_methods": 1,
}


def same_files(a, b):
    return a.read_bytes() == b.read_bytes()


def test_probability_is_that_of_the_whole_volume(finished):
    volume = make_volume().astype(np.float64)
    low, high = np.percentile(volume, (5, 99.9))
    expected = 1 / (1 + np.exp(4 - 8 * np.clip((volume - low) / (high - low), -10, 10)))
    found = tifffile.imread(finished.path("v/identity/probability.ome.tif"))
    assert found.shape == SHAPE
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_stitched_volume_opens_calibrated(finished):
    with tifffile.TiffFile(finished.path("v/identity/probability.ome.tif")) as tif:
        assert tif.is_ome
        assert tif.series[0].axes == "ZYX"
        for axis, size in zip("ZYX", SIZE_UM, strict=True):
            assert f'PhysicalSize{axis}="{size}"' in tif.ome_metadata


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


def test_every_job_logs_what_it_did(finished):
    text = (finished.folder / f"logs/v/identity/predict_tile/{TILES[0]}.log").read_text()
    for expected in ("voxmill 0.", "numpy ", "torch ", "Mvoxel/s", "done in", "backend"):
        assert expected in text
    for log in (finished.folder / "logs").rglob("*.log"):
        assert re.search(r"done in [\d.]+ s, peak memory \d+ MiB", log.read_text()), log
    # Nothing else says the same once more.
    assert not list((finished.folder / "logs").rglob("*.tsv"))


def test_a_second_run_finds_nothing_to_do(project):
    assert "Nothing to be done" in project.snakemake()


def test_a_touched_or_copied_volume_reruns_nothing(project):
    os.utime(project.folder / "v.tif")
    assert project.jobs() == {}


def test_a_changed_volume_reruns_its_jobs(project):
    volume = make_volume()
    volume[0, 0, 0] += 500
    tifffile.imwrite(project.folder / "v.tif", volume)
    assert project.jobs()["cut_tiles"] == 4


def test_a_deleted_tile_is_remade_alone_with_what_depends_on_it(project, finished):
    victim = f"v/tiles/{TILES[1]}.tif"
    project.path(victim).unlink()
    expected = {"all": 1, "cut_tiles": 1, "predict_tile": 1, **AFTER_PREDICTION, **AFTER_STITCHING}
    assert project.jobs() == expected
    project.snakemake()
    for name in (victim, f"v/identity/predictions/{TILES[1]}.tif", "v/identity/cells.csv"):
        assert same_files(project.path(name), finished.path(name)), name
    assert project.jobs() == {}


def test_a_deleted_prediction_is_remade_alone(project):
    project.path(f"v/identity/predictions/{TILES[2]}.tif").unlink()
    assert project.jobs() == {"all": 1, "predict_tile": 1, **AFTER_PREDICTION, **AFTER_STITCHING}


def test_a_changed_matching_distance_reruns_the_evaluation_alone(project):
    project.configure(evaluation={"max_distance_um": 1.5, "baseline": False})
    jobs = project.jobs("evaluate")
    assert jobs == {"evaluate": 1, "evaluate_cells": 1}


def test_flips_predict_all_tiles_anew(project):
    project.configure(prediction={"flips": True})
    assert project.jobs("predict") == {"predict": 1, "predict_tile": len(TILES)}


def test_a_changed_tile_shape_does_not_mix_old_tiles_with_new(project, finished):
    project.configure(tiles={"shape_vox": [12, 20, 12]})
    assert project.jobs()["cut_tiles"] == project.jobs()["predict_tile"] == 2
    project.snakemake()
    manifest = json.loads(project.path("v/identity/slabs/z0000.json").read_text())
    assert [tile["name"] for tile in manifest["tiles"]] == [TILES[0], TILES[1]]
    assert [tile["stop"] for tile in manifest["tiles"]] == [[12, 20, 12], [12, 20, 24]]
    probability = "v/identity/probability.ome.tif"
    np.testing.assert_allclose(
        tifffile.imread(project.path(probability)), tifffile.imread(finished.path(probability)),
        atol=1e-6,
    )  # fmt: skip
    pd.testing.assert_frame_equal(
        pd.read_csv(project.path("v/identity/cells.csv")),
        pd.read_csv(finished.path("v/identity/cells.csv")),
        atol=1e-4,
    )


def test_targets_by_name(project):
    for target in ("tiles", "predict", "stitch", "cells", "evaluate"):
        assert "Nothing to be done" in project.snakemake("--dry-run", target)
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
