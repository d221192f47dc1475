"""Disks, dates, second runs and copies."""

import os
import shutil
import subprocess
import time

import pytest

from tests.faults.runs import back_to, differing, predicted_twice, products, wait_for

# Until the suite has been run as a whole and its quick part chosen by what it takes.
pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(project):
    """The project's results on a disk of their own, whose size a test sets."""
    results = project.folder / "results"
    kept = project.folder / "kept"
    results.rename(kept)
    results.mkdir()

    def mount(*options):
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(results)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    if mount("size=4m").returncode:
        pytest.skip("needs the right to mount a tmpfs")
    shutil.copytree(kept, results, dirs_exist_ok=True)
    yield lambda *options: mount("remount", *options)
    subprocess.run(["umount", "--lazy", str(results)], check=False)


def used_bytes(folder):
    disk = os.statvfs(folder)
    return (disk.f_blocks - disk.f_bfree) * disk.f_frsize


def test_a_full_disk_is_named_and_more_space_is_enough(small_disk, project, finished):
    back_to(project, "predict_tile")
    size = used_bytes(project.folder / "results") + (12 << 10)
    small_disk(f"size={size}")
    said = project.snakemake(ok=False)
    assert "space" in said and "results/v/identity/predictions" in said
    small_disk("size=16m")
    project.snakemake("--rerun-incomplete")
    assert differing(project, finished) == []
    assert predicted_twice(project) == []


def test_a_read_only_folder_is_named(small_disk, project, finished):
    back_to(project, "stitch_volume")
    small_disk("ro")
    said = project.snakemake(ok=False)
    assert "results/v/identity" in said
    assert "Traceback" not in said
    small_disk("rw")
    project.snakemake("--rerun-incomplete")
    assert differing(project, finished) == []


def test_a_second_run_is_refused_and_harms_nothing(project, finished):
    back_to(project, "predict_tile")
    first = project.start()
    wait_for(project, first, "predict_tile/*.log")
    assert "locked" in project.snakemake("--rerun-incomplete", ok=False)
    said, _ = first.communicate(timeout=600)
    assert first.returncode == 0, said
    assert differing(project, finished) == []
    assert predicted_twice(project) == []


@pytest.mark.parametrize(
    "dates", ["equal", pytest.param("reversed", marks=pytest.mark.slow), "future"]
)
def test_dates_change_no_result(dates, project, finished):
    now = time.time()
    step = {"equal": 0, "reversed": -1, "future": 1}[dates]
    start = now + 86_400 * (dates == "future") - 1000 * (dates != "future")
    # In the order of the stages, so that reversed dates contradict it.
    for index, path in enumerate(products(project).values()):
        os.utime(path, (start + step * index,) * 2)
    project.snakemake()
    assert differing(project, finished) == []


@pytest.mark.parametrize("way", ["moved", "copied without .snakemake"])
def test_results_elsewhere_are_those_of_the_run(way, project, finished, tmp_path):
    if way == "moved":
        shutil.move(project.folder, tmp_path / "elsewhere")
        project.folder = tmp_path / "elsewhere"
        assert project.jobs() == {}
    else:
        shutil.rmtree(project.folder / ".snakemake")
        project.snakemake()
    assert differing(project, finished) == []
