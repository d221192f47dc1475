"""Go on after a run whose scheduler was killed, with no tile lost and none made twice.

The scheduler is the `snakemake` process that submits jobs. When it is killed, the jobs that it
submitted run on, and nobody notes that they finished. `resume` waits for them (or cancels them),
notes the tiles that they finished, removes the dead scheduler's lock, and starts a new run.
"""

import base64
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from voxmill.errors import VoxmillError
from voxmill.slurm import commands
from voxmill.slurm.dag import PlannedJob, planned_jobs

# Only of these files does a rename guarantee that what is there is whole; and only they are dear.
ADOPTED_RULES = ("cut_tile", "predict_tile")
CODE = ("Snakefile", "rules/**/*.smk", "scripts/**/*.py", "voxmill/**/*.py", "schemas/*.yaml")


@dataclass(frozen=True)
class Resume:
    """Settings of `resume`.

    Attributes
    ----------
    directory : path
        Working directory of the workflow, absolute.
    arguments, targets : list of str
        For Snakemake: the same as those of the run that was killed.
    profile : str
        Profile with the cluster's settings.
    cancel : {"none", "pending", "all"}
        Jobs that are cancelled rather than waited for.
    poll_s : float
        Seconds between looks at the queue.
    run : bool
        Start a new run at the end.
    """

    directory: Path
    arguments: list[str]
    targets: list[str]
    profile: str = "slurm"
    cancel: str = "none"
    poll_s: float = 15
    run: bool = True


def resume(settings: Resume, say: Callable[[str], None] = print) -> int:
    """Wait for or cancel the orphans, adopt their tiles, unlock, and run; return the exit status.

    Raises
    ------
    VoxmillError
        If the run's scheduler is still alive on this machine, or SLURM does not answer.
    """
    alive = live_schedulers(settings.directory)
    if alive:
        raise VoxmillError(
            f"snakemake still runs in {settings.directory} (process {alive[0]}): there is nothing "
            f"to resume. To stop it: `kill {alive[0]}`, which cancels its jobs as well."
        )
    settle(settings, say)
    _wait_for_local_jobs(settings, say)
    base = ["--profile", settings.profile, "--directory", str(settings.directory)]
    base += [*settings.arguments, "--rerun-incomplete"]
    _snakemake([*base, "--unlock"])
    adopted = adopt(settings.directory, base, settings.targets)
    say(f"{len(adopted)} file(s) that jobs finished after the scheduler's end are kept.")
    if not settings.run:
        return 0
    say("Going on.")
    return subprocess.call([sys.executable, "-m", "snakemake", *base, "--", *settings.targets])


def settle(settings: Resume, say: Callable[[str], None] = print) -> None:
    """Return when no job of the working directory is in SLURM's queue any more."""
    prefix = commands.profile_prefix(settings.profile)
    last = ""
    while jobs := commands.jobs_of(settings.directory, prefix):
        pending = [job for job in jobs if job.state == "PENDING"]
        doomed = {"none": [], "pending": pending, "all": jobs}[settings.cancel]
        if doomed:
            commands.cancel(doomed)
        now = f"{len(jobs) - len(pending)} running, {len(pending)} waiting"
        if now != last:
            say(f"Jobs of the killed run: {now}{', cancelling' if doomed else ''} ...")
            last = now
        time.sleep(min(settings.poll_s, 1) if doomed else settings.poll_s)


def adopt(directory: Path, arguments: list[str], targets: list[str]) -> list[str]:
    """Tell Snakemake that files which a dead scheduler's jobs finished are complete.

    A file is adopted if it was renamed into place after its job had been started, its inputs are
    older than it and not to be made again, and neither the code nor the configuration changed
    since the job's start. All else is made again.

    Parameters
    ----------
    directory : path
        Working directory of the workflow.
    arguments : list of str
        Arguments for Snakemake.
    targets : list of str
        What the run makes.

    Returns
    -------
    list of str
        The adopted files, relative to the working directory.
    """
    marked = started_files(directory)
    if not marked:
        return []
    latest_edit = _latest_edit(directory, arguments)
    jobs = planned_jobs([*arguments, "--", *targets])
    redone = {path for job in jobs for path in job.output}
    adopted: dict[str, str] = {}
    # Tiles before predictions: a prediction whose tile is adopted may be adopted too.
    for job in sorted(jobs, key=lambda job: job.rule not in ADOPTED_RULES[:1]):
        if all((job.rule in ADOPTED_RULES, latest_edit < _started_s(job, marked))) and _finished(
            directory, job, marked, redone
        ):
            adopted |= dict.fromkeys(job.output, job.rule)
            redone -= set(job.output)
    files, rules = list(adopted), sorted(set(adopted.values()))
    for start in range(0, len(files), 500):
        part = files[start : start + 500]
        _snakemake([*arguments, "--touch", "--allowed-rules", *rules, "--", *part])
    return files


def started_files(directory: Path) -> dict[str, float]:
    """Outputs that Snakemake has marked as started and not finished, with the time of the mark.

    Snakemake keeps one file for each, whose name is the output's path in base64, cut into folders
    that begin with @ where it is too long.
    """
    root = directory / ".snakemake" / "incomplete"
    found = {}
    for path in root.rglob("*"):
        if path.is_file() and path.name != "migration_underway":
            name = "".join(part.removeprefix("@") for part in path.relative_to(root).parts)
            found[base64.urlsafe_b64decode(name).decode()] = path.stat().st_mtime
    return found


def live_schedulers(directory: Path) -> list[int]:
    """Processes of this machine that run snakemake in a folder and are no jobs themselves."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            inside = os.path.realpath(process / "cwd") == os.path.realpath(directory)
            in_job = b"SLURM_JOB_ID=" in (process / "environ").read_bytes()
        except OSError:
            continue
        # A job of the local executor is marked as one; a cluster's job runs inside SLURM.
        job = b"--mode" in words or in_job
        if inside and not job and any(_is_snakemake(words, index) for index in (0, 1, 2)):
            found.append(int(process.name))
    return found


def _is_snakemake(words: list[bytes], index: int) -> bool:
    return len(words) > index and words[index].rpartition(b"/")[2] == b"snakemake"


def _wait_for_local_jobs(settings: Resume, say: Callable[[str], None]) -> None:
    """Wait for scripts of a killed run without cluster: they run on as well."""
    said = False
    while _local_jobs(settings.directory):
        if not said:
            say("Jobs of the killed run still compute on this machine; waiting ...")
            said = True
        time.sleep(min(settings.poll_s, 2))


def _local_jobs(directory: Path) -> list[int]:
    found = []
    for process in Path("/proc").iterdir():
        try:
            script = b".snakemake/scripts/" in (process / "cmdline").read_bytes()
            inside = os.path.realpath(process / "cwd") == os.path.realpath(directory)
        except OSError:
            continue
        if process.name.isdigit() and script and inside:
            found.append(int(process.name))
    return found


def _started_s(job: PlannedJob, marked: dict[str, float]) -> float:
    """When the job was started; before all time if it was not."""
    return min((marked.get(path, float("-inf")) for path in job.output), default=float("-inf"))


def _finished(directory: Path, job: PlannedJob, marked: dict[str, float], redone: set[str]) -> bool:
    """Whether the outputs are there, newer than the job's start and than its inputs."""
    try:
        made = [(directory / path).stat().st_mtime for path in job.output]
        read = [(directory / path).stat().st_mtime for path in job.input]
    except OSError:
        return False
    fresh = all(time_s >= marked[path] for path, time_s in zip(job.output, made, strict=True))
    in_order = max(read, default=0) <= min(made)
    return fresh and in_order and redone.isdisjoint(job.input)


def _latest_edit(directory: Path, arguments: list[str]) -> float:
    """Time of the last change of code and configuration."""
    root = Path(__file__).resolve().parents[2]
    files = [path for pattern in CODE for path in root.glob(pattern)]
    files += [Path(word) for word in arguments if word.endswith((".yaml", ".yml", ".smk"))]
    files += [folder / "config.yaml" for folder in (directory, root, Path())]
    return max((path.stat().st_mtime for path in files if path.is_file()), default=0)


def _snakemake(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise VoxmillError(f"snakemake {arguments[-1]} failed:\n{done.stderr.strip()[-2000:]}")
