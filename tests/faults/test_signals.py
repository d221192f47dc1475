"""Kill, terminate and interrupt: Snakemake, its group or its jobs, at six moments of a run."""

import contextlib
import os
import signal

import pytest

from tests.faults.runs import back_to, differing, jobs, predicted_twice, resume, wait_for

MOMENTS = (
    "measure_volume", "cut_tiles", "predict_tile", "stitch_volume", "find_cells", "evaluate_cells",
)  # fmt: skip
SIGNALS = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "interrupt": signal.SIGINT}
VICTIMS = ("snakemake", "group", "jobs")
# Each signal and victim once; the others take half an hour.
QUICK = {
    ("predict_tile", "kill", "jobs"),
    ("stitch_volume", "terminate", "snakemake"),
    ("evaluate_cells", "interrupt", "group"),
}
CASES = [
    pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow)
    for case in ((m, s, v) for m in MOMENTS for s in SIGNALS for v in VICTIMS)
]
ATTEMPTS = 5


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


def stopped(project, moment, victim, number):
    """Begin a run before a rule and stop it when a job of the rule is at work."""
    for _ in range(ATTEMPTS):
        back_to(project, moment)
        run = project.start()
        wait_for(project, run, moment)
        struck = strike(run, project, victim, number)
        # Jobs of a killed Snakemake hold its output open as long as they run.
        run.wait(timeout=300)
        run.stdout.close()
        # A job of a volume this small may have ended between the look and the signal.
        if struck and run.returncode:
            return
    raise AssertionError(f"no job of {moment} was hit in {ATTEMPTS} attempts")


@pytest.mark.parametrize(("moment", "name", "victim"), CASES)
def test_a_stopped_run_ends_in_the_undisturbed_result(moment, name, victim, project, finished):
    stopped(project, moment, victim, SIGNALS[name])
    if name == "kill" and victim != "jobs":
        resume(project)
    else:
        project.snakemake("--rerun-incomplete")
    assert differing(project, finished) == []
    assert predicted_twice(project) == []
    assert project.jobs() == {}
