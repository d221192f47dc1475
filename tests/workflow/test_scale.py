"""The plan of 20,000 tiles. The results are a stub, empty files: nothing is cut or predicted."""

import pytest

from benchmarks.plan_scale import (
    NETWORK,
    VOLUME,
    jobs_by_rule,
    lay_volume,
    snakemake,
    stub_results,
    write_config,
)
from tests.workflow.conftest import ROOT
from voxmill.slurm.dag import planned_jobs
from voxmill.tiles.batches import MOST_JOBS
from voxmill.tiles.grid import Grid

GRID = Grid((200, 500, 200), (10, 10, 10))
PER_JOB = 20
# Touching takes no cores: with many of them the scheduler has few rounds.
GREEDY = ("--scheduler", "greedy", "--scheduler-subsample", "100")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("scale")
    lay_volume(made / "volume.zarr", GRID.shape)
    write_config(made, GRID.tile_shape, "auto")
    return made


def test_20_000_tiles_are_2000_jobs_of_few_inputs_and_a_lost_file_is_noticed(folder):
    arguments = ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    configured = ["--configfile", str(folder / "scale.yaml"), "--cores", "1"]
    jobs = planned_jobs([*arguments, *configured])
    rules = [job.rule for job in jobs]
    assert (rules.count("cut_tiles"), rules.count("predict_batch")) == (1000, 1000)
    assert rules.count("check_slab") == len(GRID.slabs)
    for job in jobs:
        assert len(job.input) <= (1.1 if job.rule == "all" else 1) * MOST_JOBS, job.rule

    stub_results(folder, GRID, PER_JOB)
    snakemake(folder, "--touch", "--forceall", "--quiet", "--cores", "800", *GREEDY)
    text, _ = snakemake(folder, "--dry-run")
    assert "Nothing to be done" in text

    (folder / f"results/{VOLUME}/tiles/{GRID.name(25)}.tif").unlink()
    (folder / f"results/{VOLUME}/{NETWORK}/predictions/{GRID.name(10_003)}.json").unlink()
    found = jobs_by_rule(snakemake(folder, "--dry-run")[0])
    # The batch of the tile is predicted again, too, which keeps what is whole.
    assert (found["cut_tiles"], found["predict_batch"], found["check_slab"]) == (1, 2, 2)
