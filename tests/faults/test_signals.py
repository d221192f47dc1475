"""Kill, terminate and interrupt: Snakemake, its group or its jobs, at six moments of a run."""

import contextlib
import os
import signal
import time

import pytest

from tests.faults.runs import (
    back_to,
    differing,
    jobs,
    predicted_twice,
    products,
    resume,
    wait_for,
)

# The log that shows that a job is at work, in the order of a run.
MOMENTS = {
    "measure_volume": "measure_volume.log",
    "cut_tiles": "cut_tiles/*.log",
    "predict_tile": "predict_tile/*.log",
    "stitch_volume": "stitch_volume.log",
    "find_cells": "identity/find_cells.log",
    "evaluate_cells": "identity/evaluate_cells.log",
}
SIGNALS = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "interrupt": signal.SIGINT}
VICTIMS = ("snakemake", "group", "jobs")


def strike(run, project, victim, number):
    """Send a signal; returns how many processes got it."""
    if victim == "group":
        os.killpg(run.pid, number)
        return 1
    struck = 0
    for process in [run.pid] if victim == "snakemake" else jobs(project):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)
            struck += 1
    return struck


def stop(run, project, moment, victim, name):
    """Stop a run when a job of a rule is at work; returns whether it did not end well."""
    wait_for(project, run, MOMENTS[moment])
    # A job of a volume this small may be over; the next one is hit.
    while not strike(run, project, victim, SIGNALS[name]) and run.poll() is None:
        time.sleep(0.005)
    # Jobs of a killed Snakemake hold its output open as long as they run.
    run.wait(timeout=300)
    run.stdout.close()
    if name == "kill" and victim != "jobs":
        resume(project, "--no-run")
    return run.returncode != 0


@pytest.mark.slow
@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("name", SIGNALS)
def test_a_run_that_is_stopped_six_times_ends_in_the_undisturbed_result(
    name, victim, project, finished
):
    back_to(project, "measure_volume")
    stopped = []
    for moment in MOMENTS:
        # Tiles may be cut before the volume is measured.
        if products(project, [moment]).keys() == products(finished, [moment]).keys():
            back_to(project, moment)
        run = project.start("--rerun-incomplete")
        stopped.append(stop(run, project, moment, victim, name))
    # The last job that is hit may be over, but for its exit.
    assert all(stopped[:-1]), stopped
    project.snakemake("--rerun-incomplete")
    assert differing(project, finished) == []
    assert predicted_twice(project) == []
    assert project.jobs() == {}


@pytest.mark.parametrize(
    ("name", "victim"),
    [
        ("kill", "jobs"),
        ("interrupt", "group"),
        pytest.param("terminate", "snakemake", marks=pytest.mark.slow),
    ],
)
def test_a_prediction_that_is_stopped_goes_on(name, victim, project, finished):
    until = ("--until", "stitch_volume")
    back_to(project, "predict_tile", "stitch_volume")
    assert stop(project.start(*until), project, "predict_tile", victim, name)
    project.snakemake("--rerun-incomplete", *until)
    assert differing(project, finished) == []
    assert predicted_twice(project) == []
