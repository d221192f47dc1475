"""`make resume` on a machine without SLURM: all of the recovery after a killed Snakemake."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.faults.runs import left_over, products
from tests.workflow.conftest import ROOT
from voxmill.runtime.records import RECORD_SUFFIX
from voxmill.slurm.processes import local_jobs
from voxmill.slurm.table import read_tries

TARGET = "results/v/identity/cells.csv"


def tries(project):
    """How often the prediction of each tile was begun."""
    records = (project.folder / "logs").rglob(f"*{RECORD_SUFFIX}")
    return {path.name: len(read_tries(path)) for path in records}


def killed(project, whole_group):
    """A run whose Snakemake was killed, with or without its jobs, when it predicted."""
    shutil.rmtree(project.path("v/identity"))
    shutil.rmtree(project.folder / "logs")
    run = project.start(TARGET)
    limit = time.monotonic() + 300
    while not tries(project):
        assert run.poll() is None and time.monotonic() < limit
        time.sleep(0.05)
    (os.killpg if whole_group else os.kill)(run.pid, signal.SIGKILL)
    run.wait()
    return project


def without_squeue(folder):
    """A PATH with all programs but SLURM's: links to those of folders that hold `squeue` too."""
    path = []
    for number, programs in enumerate(os.get_exec_path()):
        if not os.access(f"{programs}/squeue", os.X_OK):
            path.append(programs)
            continue
        links = folder / f"programs{number}"
        links.mkdir(exist_ok=True)
        for name in os.listdir(programs):
            if name not in ("squeue", "sinfo", "sacct", "scontrol", "scancel", "sbatch"):
                with contextlib.suppress(FileExistsError):
                    (links / name).symlink_to(f"{programs}/{name}")
        path.append(str(links))
    return os.pathsep.join(path)


def resume(project, *options):
    """As `make resume` does, where `squeue` is not found."""
    arguments = ["--snakefile", str(ROOT / "Snakefile"), "--configfile", "my.yaml", "--cores", "2"]
    path = without_squeue(project.folder.parent)
    return subprocess.run(
        [sys.executable, "-m", "voxmill.slurm", "resume", *options, TARGET, "--", *arguments],
        cwd=project.folder, capture_output=True, text=True, timeout=600, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PATH": path},
    )  # fmt: skip


@pytest.mark.parametrize("whole_group", [False, True], ids=["scheduler", "group"])
def test_a_killed_run_is_resumed_and_no_tile_predicted_twice(whole_group, project, finished):
    killed(project, whole_group)
    assert not (whole_group and local_jobs(project.folder))
    # A plain rerun ends in a lock error.
    assert "unlock" in project.snakemake(TARGET, "--rerun-incomplete", ok=False)
    done = resume(project)
    assert done.returncode == 0, done.stdout + done.stderr
    rules = ["predict_tile", "check_slab", "build_level", "stitch_volume", "find_cells"]
    here, there = products(project, rules), products(finished, rules)
    assert here.keys() == there.keys()
    assert [name for name in here if here[name].read_bytes() != there[name].read_bytes()] == []
    assert left_over(project) == []
    assert project.jobs(TARGET) == {}
    # What orphans finished is kept; what was killed with its group is begun again.
    counts = tries(project)
    assert len(counts) == 4 and (whole_group or set(counts.values()) == {1}), counts


def test_jobs_of_a_killed_run_are_stopped_when_asked(project):
    killed(project, whole_group=False)
    done = resume(project, "--cancel", "--no-run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not local_jobs(project.folder)
    assert not list((project.folder / ".snakemake" / "locks").glob("*"))


def test_a_run_that_lives_is_not_resumed(project):
    shutil.rmtree(project.path("v/identity"))
    run = project.start(TARGET)
    while not (project.folder / ".snakemake" / "locks").exists() and run.poll() is None:
        time.sleep(0.05)
    done = resume(project)
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=120)
    assert done.returncode == 1
    assert f"snakemake still runs in {project.folder} (process {run.pid})" in done.stderr
