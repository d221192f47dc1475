"""A killed scheduler: no tile is lost or made twice, and the result is that of any other run."""

import os
import re
import signal

from tests.slurm.workspace import tries, wait_until

SLOW = {f"z{n:04d}": {"sleep_s": 8} for n in range(4)}
EXPECTED = "".join(f"prediction of z{n:04d}\n" for n in range(6))


def begun(work) -> set[str]:
    """Tiles whose computation has begun."""
    made = tries(work)
    return {tile for tile, records in made.items() if any("claimed" in r for r in records)}


def killed_run(work, enough=lambda tiles: len(tiles) >= 4):
    """Start a run and kill its scheduler when enough tiles are being computed: any four."""
    run = work.start("evaluate")
    wait_until(lambda: enough(begun(work)), 180, "four tiles")
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert list((work.folder / ".snakemake/locks").iterdir())
    return run


def counts(work) -> dict[str, int]:
    """How often each tile was started."""
    return {tile: len(records) for tile, records in tries(work).items()}


def stitched(work) -> str:
    """The result."""
    return (work.folder / "results/demo/net/probability.ome.tif").read_text()


def test_orphans_are_waited_for_and_their_tiles_kept(mini):
    work = mini(tiles=6, behaviour=SLOW)
    killed_run(work)
    # A plain run is now refused with an explanation.
    assert "unlock" in work.snakemake("evaluate", check=False).stderr
    said = work.voxmill("resume", "--poll", "1", "evaluate").stdout
    assert "Jobs of the killed run:" in said
    # Kept are the four tiles that ran at the kill, and others whose jobs had been submitted.
    assert int(re.search(r"Kept (\d+) file", said)[1]) >= 4
    assert stitched(work) == EXPECTED
    assert set(counts(work).values()) == {1}
    # SLURM's record agrees: six tiles, six jobs, none of them cancelled.
    assert [row["JobState"] for row in work.predictions()] == ["COMPLETED"] * 6
    # The kept tiles are recorded like all others: a change of their settings makes them again.
    assert "Nothing to be done" in work.snakemake("evaluate").stderr
    configuration = work.folder / "mini.yaml"
    configuration.write_text(configuration.read_text().replace("sleep_s: 8", "sleep_s: 9"))
    again = work.snakemake("predict", options=("--dry-run",))
    assert (again.stdout + again.stderr).count("Params have changed") == 4


def test_orphans_are_cancelled_when_asked(mini):
    once = {tile: {"slow_attempts": 1, "slow_s": 100} for tile in SLOW}
    work = mini(tiles=6, behaviour=once)
    # Each slow try is one of the killed run: the next one does not wait.
    killed_run(work, set(SLOW).issubset)
    work.voxmill("resume", "--cancel", "evaluate")
    states = [row["JobState"] for row in work.predictions()]
    assert states.count("CANCELLED") >= 4 and states.count("COMPLETED") == 6
    assert stitched(work) == EXPECTED


def test_tiles_made_with_other_settings_are_not_kept(mini):
    work = mini(tiles=4, behaviour=SLOW)
    killed_run(work)
    configuration = work.folder / "mini.yaml"
    configuration.write_text(configuration.read_text() + "# edited\n")
    said = work.voxmill("resume", "--poll", "1", "evaluate").stdout
    assert "Kept 0 file(s)" in said and "Removed 4 such file(s)" in said
    assert set(counts(work).values()) == {2}


def test_resume_is_refused_while_the_scheduler_runs(mini):
    work = mini(tiles=1, behaviour={"z0000": {"sleep_s": 100}})
    run = work.start("evaluate")
    wait_until(lambda: tries(work), 180, "a tile")
    refused = work.voxmill("resume", check=False)
    assert refused.returncode == 1
    assert f"snakemake still runs in {work.folder} (process {run.pid})" in refused.stderr
    run.send_signal(signal.SIGINT)
    run.wait(180)


def test_an_interrupted_array_is_resumed(mini):
    work = mini(tiles=6, behaviour=SLOW)
    work.voxmill("array", "--limit", "4")
    wait_until(lambda: len(tries(work)) >= 4, 180, "four tiles")
    said = work.voxmill("resume", "--poll", "1", "--cancel-pending", "evaluate").stdout
    assert "waiting" in said
    assert stitched(work) == EXPECTED
    assert set(counts(work).values()) == {1}
