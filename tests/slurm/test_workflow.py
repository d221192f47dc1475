"""The whole workflow on a real SLURM with the shipped profile, on a small volume."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import yaml

from tests.slurm.workspace import Workspace, tries, wait_until
from tests.workflow.conftest import ROOT, make_project
from voxmill.slurm import table

TILES = ["z0000_y0000_x0000", "z0000_y0000_x0012", "z0000_y0010_x0000", "z0000_y0010_x0012"]


def workspace(folder: Path, cluster) -> Workspace:
    """The repository's workflow in the folder of a project."""
    arguments = ["-s", str(ROOT / "Snakefile"), "--configfile", str(folder / "my.yaml")]
    return Workspace(folder, cluster, arguments)


@pytest.fixture(scope="module")
def finished(shared_cluster, tmp_path_factory) -> Workspace:
    """A complete run in which every job is a job of SLURM."""
    project = make_project(tmp_path_factory.mktemp("cluster") / "project")
    # On a cluster, `auto` asks for a GPU.
    project.configure(prediction={"device": "auto"}, evaluation={"baseline": False})
    work = workspace(project.folder.resolve(), shared_cluster)
    work.snakemake(timeout_s=900)
    return work


def test_everything_is_made(finished):
    results = finished.folder / "results/v/identity"
    assert sorted(path.stem for path in (results / "predictions").glob("*.json")) == TILES
    assert json.loads((results / "evaluation.json").read_text())["f1"] == 1.0
    assert "Nothing to be done" in finished.snakemake().stderr
    assert [row for row in finished.jobs() if row["JobState"] != "COMPLETED"] == []


def test_no_two_tiles_use_a_gpu_at_the_same_time(finished):
    made = tries(finished)
    assert sorted(made) == TILES
    records = [record for records in made.values() for record in records]
    assert len(records) == len({record["job_id"] for record in records}) == 4
    assert all(record["visible"] == [record["cuda_visible_devices"]] for record in records)
    held = [(r["node"], r["visible"][0], r["claimed"], r["end"]) for r in records]
    for index, (node, gpu, start, end) in enumerate(held):
        for other_node, other_gpu, other_start, other_end in held[:index]:
            if (node, gpu) == (other_node, other_gpu):
                assert end <= other_start or other_end <= start
    # SLURM's record agrees: one GPU for each tile, none for jobs on CPUs.
    assert {row["gpus"] for row in finished.predictions()} == {"1"}
    on_cpus = ("cut_tiles", "check_slab", "stitch_volume", "find_cells", "evaluate_cells")
    for rule in on_cpus:
        rows = [row for row in finished.jobs() if f"rule_{rule}" in row["Comment"]]
        assert rows and {row["gpus"] for row in rows} == {"0"}


def test_jobs_are_named_after_the_prefix(finished):
    assert all(re.match(r"voxmill_[0-9a-f-]{36}$", row["JobName"]) for row in finished.jobs())


def test_inspection_and_single_rules(finished):
    listed = finished.snakemake("predict", options=("--dry-run", "--forcerun", "predict_tile"))
    assert re.search(r"^predict_tile +4$", listed.stdout + listed.stderr, re.MULTILINE)
    summary = finished.snakemake("predict", options=("--summary",)).stdout
    assert all(f"predictions/{tile}.json" in summary for tile in TILES)


def test_the_table_after_the_run(finished, tmp_path):
    path = tmp_path / "table.csv"
    shown = finished.voxmill("table", "--csv", str(path)).stdout
    assert "4 of 4 done" in shown and "0 retries" in shown
    rows = path.read_text().splitlines()
    assert rows[0].startswith("task,status,node,devices,seconds,wait_s,gpu_seconds,retries")
    assert len(rows) == 5


def test_batches_of_tiles_share_a_job_and_its_gpu(finished, tmp_path, cluster):
    """With the scheduler and then with arrays: two jobs of two tiles each make the same files."""
    shutil.copytree(finished.folder, tmp_path / "copy", symlinks=True)
    settings = yaml.safe_load((tmp_path / "copy/my.yaml").read_text())
    settings["tiles"]["per_job"] = 2
    (tmp_path / "copy/my.yaml").write_text(yaml.safe_dump(settings))
    work = workspace((tmp_path / "copy").resolve(), cluster)
    results = work.folder / "results/v/identity"
    before = {path.name: path.read_bytes() for path in (results / "predictions").glob("*.json")}

    shutil.rmtree(results / "predictions")
    work.snakemake("predict")
    assert {p.name: p.read_bytes() for p in (results / "predictions").glob("*.json")} == before
    assert [(row["gpus"], row["JobState"]) for row in batch_jobs(work)] == [("1", "COMPLETED")] * 2
    records = sorted((work.folder / "logs/v/identity/predict_batch").glob("*.jobs.jsonl"))
    assert [len(table.read_tries(path)) for path in records] == [1, 1]

    shutil.rmtree(results / "predictions")
    shutil.rmtree(results / "batches")
    work.voxmill("array")
    wait_until(lambda: not work.cluster.run("squeue", "--noheader").strip(), 180, "the array")
    assert {p.name: p.read_bytes() for p in (results / "predictions").glob("*.json")} == before
    tasks = [row for row in batch_jobs(work) if "_" in row["id"]]
    assert [(row["gpus"], row["JobState"]) for row in tasks] == [("1", "COMPLETED")] * 2
    assert "Nothing to be done" in work.snakemake().stderr


def batch_jobs(work: Workspace) -> list[dict]:
    return [row for row in work.jobs() if "rule_predict_batch" in row.get("Comment", "")]


def test_a_resumed_run_gives_the_result_of_an_undisturbed_one(finished, tmp_path, cluster):
    shutil.copytree(finished.folder, tmp_path / "copy", symlinks=True)
    work = workspace((tmp_path / "copy").resolve(), cluster)
    results = work.folder / "results/v/identity"
    names = [f"predictions/{tile}.json" for tile in TILES]
    names += ["probability.ome.zarr/zarr.json", "cells.csv"]
    before = {name: (results / name).read_bytes() for name in names}
    shutil.rmtree(results / "predictions")
    run = work.start("predict", "cells")
    wait_until(lambda: any(len(records) == 2 for records in tries(work).values()), 180, "a tile")
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert (
        "Jobs of the killed run:"
        in work.voxmill("resume", "--poll", "1", "predict", "cells").stdout
    )
    assert {name: (results / name).read_bytes() for name in names} == before
    # Once in the first run, once in this one.
    assert [len(records) for records in tries(work).values()] == [2] * 4
    assert "Nothing to be done" in work.snakemake("predict", "cells").stderr


def test_denoising_asks_for_two_gpus_of_one_node(cluster, tmp_path):
    project = make_project(tmp_path / "project")
    scan = {"phantom": {"shape_vox": [24, 24, 24], "voxel_size_mm": 4, "seed": 1}}
    content = project.config | {
        "scans": {"head": scan},
        "denoising": {"devices": ["cuda:0", "cuda:1"], "iterations": 10},
    }
    (project.folder / "my.yaml").write_text(yaml.safe_dump(content))
    work = workspace(project.folder.resolve(), cluster)
    done = work.snakemake("denoise", options=("--retries", "0"), check=False)
    (job,) = [row for row in work.jobs() if "rule_denoise_scan" in row["Comment"]]
    assert (job["gpus"], job["NumNodes"]) == ("2", "1")
    log = (work.folder / "logs/head/denoise_scan.log").read_text()
    # The job ends here, since the GPUs of the test cluster are fake; with two real ones it goes on.
    assert done.returncode == 0 or "cuda:0 is not here" in log
