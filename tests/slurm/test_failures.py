"""Failures on a cluster: cancelled jobs, too little memory or time, dead nodes, missing GPUs."""

import itertools
import signal

import pytest

from tests.slurm.workspace import tries, wait_until


def started(work, tile: str):
    """Wait until a tile's job runs; returns its job number."""
    wait_until(lambda: any("claimed" in r for r in tries(work).get(tile, [])), 180, f"{tile} runs")
    return tries(work)[tile][-1]["job_id"]


def test_a_cancelled_tile_and_one_with_too_little_memory_are_made_again(mini):
    work = mini(
        tiles=3,
        behaviour={
            "z0000": {"slow_attempts": 1, "slow_s": 100},
            "z0001": {"allocate_attempts": 1, "allocate_mb": 600},
        },
    )
    run = work.start("evaluate")
    victim = started(work, "z0000")
    work.cluster.run("scancel", victim)
    assert run.wait(300) == 0

    states = {row["id"]: row["JobState"] for row in work.predictions()}
    assert states[victim] == "CANCELLED"
    made = tries(work)
    assert {tile: len(records) for tile, records in made.items()} == {
        "z0000": 2,
        "z0001": 2,
        "z0002": 1,
    }
    assert states[made["z0001"][0]["job_id"]] in ("FAILED", "OUT_OF_MEMORY")
    assert [record["memory_per_node"] for record in made["z0001"]] == ["400M", "800M"]
    # SLURM ran no other job.
    assert len(states) == 5


def test_ctrl_c_cancels_the_jobs(mini):
    work = mini(tiles=2, behaviour={"z0000": {"sleep_s": 100}, "z0001": {"sleep_s": 100}})
    run = work.start("evaluate")
    started(work, "z0000")
    started(work, "z0001")
    run.send_signal(signal.SIGINT)
    run.wait(180)
    wait_until(lambda: not work.cluster.run("squeue", "--noheader").strip(), 30, "no job left")
    assert {row["JobState"] for row in work.predictions()} == {"CANCELLED"}


def test_two_gpus_on_one_node(mini):
    """The request of denoising: encoder and decoder on two devices of one node."""
    work = mini(tiles=3, gpus=2, behaviour={f"z{n:04d}": {"sleep_s": 3} for n in range(3)})
    work.snakemake("evaluate")
    records = [record for records in tries(work).values() for record in records]
    assert [sorted(record["visible"]) for record in records] == [["0", "1"]] * 3
    assert {(row["gpus"], row["NumNodes"]) for row in work.predictions()} == {("2", "1")}
    # Three such jobs do not fit two nodes of two GPUs at once.
    by_node: dict[str, list] = {}
    for record in records:
        by_node.setdefault(record["node"], []).append((record["allocated"], record["end"]))
    for times in by_node.values():
        times.sort()
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(times))


def test_a_job_that_sees_no_gpu_reports_it_at_once(mini):
    work = mini(tiles=1)
    work.environment["VOXMILL_ALLOW_CPU"] = "0"
    failed = work.snakemake("predict", options=("--retries", "0"), check=False)
    assert failed.returncode == 1
    row = work.predictions()[0]
    log = work.folder / f"logs/slurm/rule_predict_tile/z0000/{row['id']}.log"
    # SLURM allocated a GPU, but this machine has none; the CPU must not replace it.
    assert f"Node {row['NodeList']}: the job holds GPU 0, but this PyTorch" in log.read_text()


@pytest.mark.slow
def test_a_tile_with_too_little_time_is_made_again_with_more(mini):
    """SLURM counts walltime in minutes, so this one takes more than one."""
    work = mini(tiles=2, behaviour={"z0001": {"slow_attempts": 1, "slow_s": 200}})
    minutes = ("--set-resources", "predict_tile:runtime=attempt")
    work.snakemake("evaluate", options=minutes, timeout_s=900)
    made = tries(work)
    assert [record["time_limit"] for record in made["z0001"]] == ["00:01:00", "00:02:00"]
    states = {row["id"]: row["JobState"] for row in work.predictions()}
    assert states[made["z0001"][0]["job_id"]] == "TIMEOUT"


@pytest.mark.slow
def test_a_dead_nodes_tiles_are_made_elsewhere(own_mini):
    tiles = [f"z{n:04d}" for n in range(4)]
    work = own_mini(tiles=4, behaviour={tile: {"slow_attempts": 1, "slow_s": 15} for tile in tiles})
    run = work.start("evaluate")
    for tile in tiles:
        started(work, tile)
    lost = [tile for tile, records in tries(work).items() if records[0]["node"] == "n2"]
    assert len(lost) == 2
    work.cluster.kill_node("n2")
    assert run.wait(300) == 0
    for tile, records in tries(work).items():
        assert len(records) == (2 if tile in lost else 1)
        assert records[-1]["node"] == "n1" and records[-1]["status"] == "done"
    assert "n2" in work.cluster.run("sinfo", "--noheader", "--states=down", "-o", "%N")
