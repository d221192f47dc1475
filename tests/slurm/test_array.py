"""The prediction stage as job arrays: slow, failing and cancelled tasks, too little memory."""

import json
import re

import pytest

from tests.slurm.workspace import Workspace, tries, wait_until


def submitted(output: str) -> list[str]:
    """Job numbers that a submission printed."""
    return re.findall(r"^(\d+): ", output, re.MULTILINE)


def wait_for_the_end(work: Workspace, timeout_s: float = 180) -> None:
    """Wait until SLURM's queue is empty: the last job submits the next ones before it ends."""
    busy = ("squeue", "--noheader")
    wait_until(lambda: not work.cluster.run(*busy).strip(), timeout_s, "the end of the arrays")


def most_at_once(records: list[dict]) -> int:
    """Largest number of records whose times overlap."""
    events = [(r["start"], 1) for r in records] + [(r["end"], -1) for r in records if "end" in r]
    running = most = 0
    for _, change in sorted(events):
        running += change
        most = max(most, running)
    return most


def test_slow_tiles_failing_tiles_and_tiles_with_too_little_memory_are_completed(mini):
    work = mini(
        tiles=7,
        behaviour={
            "z0000": {"sleep_s": 8},
            "z0002": {"fail_attempts": 1},
            "z0004": {"allocate_attempts": 1, "allocate_mb": 600},
        },
    )
    said = work.voxmill("array", "--limit", "2", "--chunk", "4").stdout
    # The job before the arrays, two arrays for seven tiles, the job after them.
    assert len(submitted(said)) == 4
    wait_for_the_end(work)

    stitched = (work.folder / "results/demo/net/probability.ome.tif").read_text()
    assert stitched == "".join(f"prediction of z{n:04d}\n" for n in range(7))
    arrays = [row for row in work.predictions() if "_" in row["id"]]
    first = submitted(said)[1:3]
    failed = [row for row in arrays if row["JobState"] != "COMPLETED"]
    assert len(failed) == 2 and all(row["id"].split("_")[0] in first for row in failed)
    # SLURM ran seven tasks and the two failed ones again, and gave each one GPU.
    assert len(arrays) == 9
    assert {row["gpus"] for row in arrays} == {"1"}

    made = tries(work)
    assert {tile: len(records) for tile, records in made.items()} == {
        f"z{n:04d}": 2 if n in (2, 4) else 1 for n in range(7)
    }
    # The killed task had less memory than the one that made the tile.
    assert [record["memory_per_node"] for record in made["z0004"]] == ["400M", "800M"]
    assert most_at_once([r for records in made.values() for r in records if "end" in r]) <= 2
    # The main run finds all tiles done, as if it had made them itself.
    assert "Nothing to be done" in work.snakemake("evaluate").stderr
    assert not list((work.folder / ".snakemake/incomplete").iterdir())
    assert "No tile is left" in work.voxmill("array").stdout


def test_a_cancelled_task_is_made_again(mini):
    work = mini(tiles=3, behaviour={"z0001": {"slow_attempts": 1, "slow_s": 100}})
    work.voxmill("array", "--retries", "1")
    victim = wait_until(
        lambda: [r["id"] for r in work.predictions() if r["id"].endswith("_1")], 180, "task 1"
    )[0]
    records = work.folder / "logs/demo/net/predict_tile/z0001.jobs.jsonl"
    wait_until(records.exists, 180, "the tile's start")
    work.cluster.run("scancel", victim)
    wait_for_the_end(work)
    states = {row["id"]: row["JobState"] for row in work.predictions()}
    assert states[victim] == "CANCELLED"
    assert (work.folder / "results/demo/net/predictions/z0001.tif").exists()
    assert {tile: len(records) for tile, records in tries(work).items()} == {
        "z0000": 1,
        "z0001": 2,
        "z0002": 1,
    }
    assert "Nothing to be done" in work.snakemake("evaluate").stderr


def test_tiles_that_fail_in_every_try_are_named_and_can_be_submitted_again(mini):
    work = mini(tiles=3, behaviour={"z0001": {"fail_attempts": 2}})
    last = submitted(work.voxmill("array", "--retries", "0").stdout)[-1]
    wait_for_the_end(work)
    states = {row["id"]: row["JobState"] for row in work.jobs()}
    assert states[last] == "FAILED"
    log = next((work.folder / "logs/slurm").glob("*/after-1.log")).read_text()
    assert "1 tile(s) failed in all 1 tries" in log
    assert "results/demo/net/predictions/z0001.tif" in log
    assert not (work.folder / "results/demo/net/probability.ome.tif").exists()

    # Only the missing tile is submitted; it fails again and then succeeds.
    said = work.voxmill("array", "--retries", "1").stdout
    assert "array of 1 task(s), try 1" in said
    wait_for_the_end(work)
    assert {tile: len(records) for tile, records in tries(work).items()} == {
        "z0000": 1,
        "z0001": 3,
        "z0002": 1,
    }
    assert (work.folder / "results/demo/net/probability.ome.tif").exists()


def test_a_submission_is_refused_while_jobs_of_the_folder_are_in_the_queue(mini):
    work = mini(tiles=1, behaviour={"z0000": {"sleep_s": 100}})
    work.voxmill("array")
    refused = work.voxmill("array", check=False)
    assert refused.returncode == 1
    assert "still in SLURM's queue" in refused.stderr and "make resume" in refused.stderr


def test_a_submission_that_slurm_refuses_reports_the_reason(mini):
    work = mini(tiles=2, runtime=5)
    work.arguments += ["--set-resources", "predict_tile:slurm_partition=nowhere"]
    refused = work.voxmill("array", check=False)
    assert refused.returncode == 1
    assert "invalid partition specified: nowhere" in refused.stderr
    # The job before the arrays, which SLURM had accepted, is cancelled.
    wait_until(lambda: not work.cluster.run("squeue", "--noheader").strip(), 30, "an empty queue")


@pytest.mark.slow
def test_a_thousand_tiles(mini):
    """Five arrays of at most 201 tasks; each task starts Snakemake: 15 to 30 minutes on 2 cores."""
    work = mini(tiles=1000, plain=True)
    said = work.voxmill("array", "--retries", "0").stdout
    assert len(submitted(said)) == 1 + 5 + 1
    wait_for_the_end(work, 3600)
    assert {row["JobState"] for row in work.jobs()} == {"COMPLETED"}
    assert len([row for row in work.predictions() if "_" in row["id"]]) == 1000
    stitched = (work.folder / "results/demo/net/probability.ome.tif").read_text().splitlines()
    assert stitched == [f"prediction of z{n:04d}" for n in range(1000)]
    assert "Nothing to be done" in work.snakemake("evaluate").stderr
    run = json.loads(next((work.folder / "logs/slurm").glob("*/run.json")).read_text())
    assert run["attempt"] == 1
