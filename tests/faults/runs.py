"""A run that is disturbed, what it leaves, and what the undisturbed run leaves."""

import os
import shutil
import subprocess
import sys
import time

from tests.workflow.conftest import ROOT
from voxmill.runtime.records import RECORD_SUFFIX
from voxmill.slurm.processes import local_jobs
from voxmill.slurm.table import read_tries

# Every product of the run, by the rule that makes it, in the order of the stages. A test that
# disturbs a stage deletes its products and all later ones.
STAGES = {
    "measure_volume": ["v/statistics.json", "v/grey_blocks.npz"],
    "plan_volume": ["v/plan.json"],
    "check_ground_truth": ["v/truth.csv"],
    "cut_tiles": ["v/tiles/*.tif", "v/batches/*.json"],
    "predict_tile": ["v/identity/predictions/*.json", "v/identity/probability.ome.zarr/0/c/**/*"],
    "check_slab": ["v/identity/slabs/*.json"],
    "build_level": ["v/identity/levels/**/*.json", "v/identity/probability.ome.zarr/[1-9]/c/**/*"],
    "stitch_volume": ["v/identity/probability.ome.zarr/**/zarr.json"],
    "measure_seams": ["v/identity/seams.json"],
    "find_cells": ["v/identity/cells.csv"],
    "find_baseline_cells": ["v/baseline/cells.csv"],
    "draw_overview": ["v/identity/overview.png"],
    "evaluate_cells": ["v/*/evaluation.json", "v/*/evaluation.csv", "v/*/matches.csv"],
    "compare_methods": ["v/comparison.html"],
}


def products(project, rules=STAGES):
    """Files that some rules made, by name; hidden ones are no results."""
    results = project.folder / "results"
    found = [path for rule in rules for name in STAGES[rule] for path in results.glob(name)]
    names = {path.relative_to(results).as_posix(): path for path in found if path.is_file()}
    return {name: names[name] for name in sorted(names) if not is_hidden(name)}


def is_hidden(name):
    return name.startswith(".") or "/." in name


def left_over(project):
    """What writers have or left, by name: scratch files, their folders, and locks."""
    results, host = project.folder / "results", f".{os.uname().nodename}-"
    return sorted(
        path.relative_to(results).as_posix()
        for path in results.rglob(".*")
        if path.name.startswith(host) or path.name.endswith(".lock")
    )


def differing(project, finished):
    """Products that are missing, too many, or of other bytes than those of the undisturbed run."""
    here, there = products(project), products(finished)
    return sorted(
        name
        for name in {*here, *there}
        if name not in here
        or name not in there
        or here[name].read_bytes() != there[name].read_bytes()
    )


def back_to(project, rule, until=None):
    """Take a finished project back to before a rule: products from it on and all logs go.

    With `until`, the last rule whose products go, later ones stay.
    """
    names = list(STAGES)
    last = len(names) if until is None else names.index(until) + 1
    for path in products(project, names[names.index(rule) : last]).values():
        path.unlink()
    shutil.rmtree(project.folder / "logs", ignore_errors=True)


def wait_for(project, run, log, limit_s=600):
    """Wait until a job is at work: its log is there, and was not before."""
    logs, end = project.folder / "logs", time.monotonic() + limit_s
    before = {path: path.stat().st_mtime_ns for path in logs.rglob(log)}
    while all(before.get(path) == path.stat().st_mtime_ns for path in logs.rglob(log)):
        assert run.poll() is None, f"ended before {log}"
        assert time.monotonic() < end, f"no {log} in {limit_s} s"
        time.sleep(0.005)


def predicted_twice(project):
    """Tiles whose prediction ended well more than once, by the jobs' own records."""
    records = (project.folder / "logs").rglob(f"*{RECORD_SUFFIX}")
    done = {p.name: [t for t in read_tries(p) if t.get("status") == "done"] for p in records}
    return [name for name, tries in done.items() if len(tries) > 1]


def resume(project, *options):
    """`make resume`, as on a machine without SLURM."""
    command = [
        sys.executable, "-m", "voxmill.slurm", "resume", *options, "--profile", "",
        "--poll", "1", "--", "--snakefile", str(project.root / "Snakefile"),
        "--configfile", "my.yaml", "--cores", "2",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=project.folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def environment():
    return os.environ | {"PYTHONPATH": str(ROOT)}


def jobs(project):
    """Processes of the jobs of a run."""
    return local_jobs(project.folder)
