"""Volume and ground truth replaced between any two stages of a run."""

import shutil

import pytest

from tests.faults.runs import STAGES, differing
from tests.workflow.test_two_edits import change_truth, change_volume

CHANGES = {"volume": [change_volume], "truth": [change_truth]}
CHANGES["both"] = CHANGES["volume"] + CHANGES["truth"]


@pytest.mark.slow
@pytest.mark.parametrize("what", CHANGES)
def test_sources_replaced_between_any_two_stages(what, project, finished):
    """A walk through the stages; between two of them the other sources are put in place.

    What earlier stages made of the other sources is there each time, and the last sources are
    those of the undisturbed run.
    """
    shutil.rmtree(project.folder / "results")
    shutil.rmtree(project.folder / ".snakemake")
    others = False
    for stage in STAGES:
        project.snakemake("--until", stage)
        others = not others
        if others:
            for change in CHANGES[what]:
                change(project)
        else:
            for name in ("v.tif", "truth.csv"):
                # With the date of now, and another inode.
                shutil.copyfile(finished.folder / name, project.folder / f"new {name}")
                (project.folder / f"new {name}").replace(project.folder / name)
    assert not others
    project.snakemake()
    assert differing(project, finished) == []
    assert project.jobs() == {}
