"""Kill, terminate and interrupt: Snakemake, its group or its jobs, at six moments of a run."""

import contextlib
import os
import signal

import pytest

from tests.faults.runs import back_to, differing, jobs, predicted_twice, resume, wait_for

# Until the suite has been run as a whole and its quick part chosen by what it takes.
pytestmark = pytest.mark.slow

MOMENTS = (
    "measure_volume", "cut_tiles", "predict_tile", "stitch_volume", "find_cells", "evaluate_cells",
)  # fmt: skip
SIGNALS = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "interrupt": signal.SIGINT}
VICTIMS = ("snakemake", "group", "jobs")
# One of each signal, victim and several moments; the others take an hour.
QUICK = {
    ("predict_tile", "kill", "jobs"),
    ("predict_tile", "terminate", "snakemake"),
    ("stitch_volume", "kill", "group"),
    ("evaluate_cells", "interrupt", "group"),
}
CASES = [
    pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow)
    for case in ((m, s, v) for m in MOMENTS for s in SIGNALS for v in VICTIMS)
]


def strike(run, project, victim, number):
    if victim == "snakemake":
        os.kill(run.pid, number)
    elif victim == "group":
        os.killpg(run.pid, number)
    else:
        for process in jobs(project):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)


@pytest.mark.parametrize(("moment", "name", "victim"), CASES)
def test_a_stopped_run_ends_in_the_undisturbed_result(moment, name, victim, project, finished):
    back_to(project, moment)
    run = project.start()
    wait_for(project, run, moment)
    strike(run, project, victim, SIGNALS[name])
    # Jobs of a killed Snakemake hold its output open as long as they run.
    run.wait(timeout=300)
    run.stdout.close()
    if name == "kill" and victim != "jobs":
        resume(project)
    else:
        project.snakemake("--rerun-incomplete")
    assert differing(project, finished) == []
    assert predicted_twice(project) == []
    assert project.jobs() == {}
