"""Continue a run whose scheduler was killed, with no tile lost and none made twice.

The scheduler is the `snakemake` process that starts jobs, here or on a cluster. When it is killed,
its jobs continue and finish their files, but no record says with which settings these were made: a
later change of the settings would not make them again. `resume` waits for the jobs (or stops
them), removes what killed ones left half written, records the files that they finished, removes the
dead scheduler's lock, and starts a new run.
"""

import base64
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import remove_leftovers
from voxmill.slurm import commands
from voxmill.slurm.dag import PlannedJob, planned_jobs
from voxmill.slurm.processes import live_schedulers, local_jobs

CODE = ("Snakefile", "rules/**/*.smk", "scripts/**/*.py", "voxmill/**/*.py", "schemas/*.yaml")
GRACE_S = 60
"""What a job that is asked to end has for its checkpoint."""


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
        Profile with the cluster's settings; "" for a run on this machine alone.
    cancel : {"none", "pending", "all"}
        Jobs to cancel instead of waiting for them.
    poll_s : float
        Seconds between checks of the queue.
    run : bool
        Whether to start a new run at the end.
    """

    directory: Path
    arguments: list[str]
    targets: list[str]
    profile: str = "slurm"
    cancel: str = "none"
    poll_s: float = 15
    run: bool = True

    def for_snakemake(self) -> list[str]:
        """Arguments for Snakemake, with what the killed run had from its profile."""
        base = ["--directory", str(self.directory), *self.arguments]
        if self.profile:
            base = ["--profile", self.profile, *base]
        elif not any(word.startswith(_CORES) for word in self.arguments):
            base += ["--cores", "all"]
        return [*base, "--rerun-incomplete"]


# Options that say how many jobs run at once: one of them is needed.
_CORES = ("--cores", "-c", "--jobs", "-j", "--profile", "--workflow-profile")


def usual_profile() -> str:
    """The profile of a run that names none: that of SLURM where its commands are, else none."""
    return "slurm" if shutil.which("squeue") else ""


def resume(settings: Resume) -> int:
    """Wait for the killed run's jobs or cancel them, keep their tiles, and start a new run.

    Returns the exit status of the new run, 0 without one.

    Raises
    ------
    VoxmillError
        If the run's scheduler still runs on this machine, or SLURM does not answer.
    """
    alive = live_schedulers(settings.directory)
    if alive:
        raise VoxmillError(
            f"snakemake still runs in {settings.directory} (process {alive[0]}): there is nothing "
            f"to resume. `kill -INT {alive[0]}` stops it and its jobs."
        )
    # Nothing to wait for in a queue where a run had no profile of a cluster.
    if settings.profile:
        settle(settings)
    _wait_for_local_jobs(settings)
    remove_leftovers(settings.directory / "results")
    base = settings.for_snakemake()
    kept, removed = adopt(settings.directory, base, settings.targets, not settings.profile)
    print(f"Kept {len(kept)} file(s) that jobs finished after the scheduler's end.")
    if removed:
        print(
            f"Removed {len(removed)} such file(s), the first {removed[0]}: code or configuration "
            "was edited after the killed run began, so either version may have made them."
        )
    _snakemake([*base, "--unlock"])
    if not settings.run:
        return 0
    print("The new run starts.")
    return subprocess.call([sys.executable, "-m", "snakemake", *base, "--", *settings.targets])


def settle(settings: Resume) -> None:
    """Wait until no job of the working directory is in SLURM's queue; cancel jobs as set."""
    prefix = commands.profile_prefix(settings.profile)
    last = ""
    while jobs := commands.jobs_of(settings.directory, prefix):
        pending = [job for job in jobs if job.state == "PENDING"]
        cancelled = {"none": [], "pending": pending, "all": jobs}[settings.cancel]
        if cancelled:
            commands.cancel(cancelled)
        now = f"{len(jobs) - len(pending)} running, {len(pending)} waiting"
        if now != last:
            print(f"Jobs of the killed run: {now}{', cancelling' if cancelled else ''} ...")
            last = now
        time.sleep(min(settings.poll_s, 1) if cancelled else settings.poll_s)


def adopt(
    directory: Path, arguments: list[str], targets: list[str], here: bool = False
) -> tuple[list[str], list[str]]:
    """Add the files that jobs of a dead scheduler finished to Snakemake's records.

    Only the scheduler records the settings with which files were made. Files of the dead run that
    are complete and have no record get one (`snakemake --touch`), unless code or configuration was
    edited since the run began: then the version that made them is unknown, and they are removed.
    Files that Snakemake would make again for other reasons are left alone.

    On a cluster, a job that succeeds removes the mark of incomplete files itself. On this machine
    the scheduler would have done so: there, a job's files are complete if all of them are newer
    than their marks, since each gets its name only when it is whole.

    Parameters
    ----------
    directory : path
        Working directory of the workflow.
    arguments : list of str
        Arguments for Snakemake.
    targets : list of str
        What the run makes.
    here : bool
        Whether its jobs ran on this machine.

    Returns
    -------
    kept, removed : lists of str
        Files, relative to the working directory.
    """
    found = unrecorded_files(directory, here)
    if not found:
        return [], []
    if _latest_edit(directory, arguments) > _run_began_s(directory):
        for path in found:
            (directory / path).unlink(missing_ok=True)
        return [], found
    _snakemake([*arguments, "--unlock"])
    jobs = planned_jobs([*arguments, "--", *targets])
    again = {path for job in jobs for path in job.output}
    # Files that are newer than their record: the dead run made them again with new settings.
    replaced = [job for job in jobs if job.output and set(job.output) <= set(found)]
    for job in replaced:
        if again.isdisjoint(job.input) and _in_order(directory, job):
            again -= set(job.output)
    kept = [path for path in found if path not in again]
    for path in kept:
        record_path(directory, "incomplete", path).unlink(missing_ok=True)
    for start in range(0, len(kept), 500):
        part = kept[start : start + 500]
        _snakemake([*arguments, "--touch", "--force", "--", *part])
    return kept, []


def unrecorded_files(directory: Path, here: bool = False) -> list[str]:
    """List finished outputs of the locked run that have no record of Snakemake or an older one.

    Parameters
    ----------
    directory : path
        Working directory of the workflow.
    here : bool
        Whether its jobs ran on this machine: see `adopt`.
    """
    began_s = _run_began_s(directory)
    found = []
    for lock in _locks(directory, "output"):
        for name in lock.read_text(encoding="utf-8").splitlines():
            path = directory / name
            if not path.is_file() or path.stat().st_mtime < began_s:
                continue
            mark = record_path(directory, "incomplete", name)
            record = record_path(directory, "metadata", name)
            recorded = record.exists() and record.stat().st_mtime >= path.stat().st_mtime
            marked = mark.exists() and not (here and mark.stat().st_mtime <= path.stat().st_mtime)
            if not marked and not recorded:
                found.append(name)
    return sorted(set(found))


def record_path(directory: Path, kind: str, name: str) -> Path:
    """Return Snakemake's file about an output: its path in base64, cut at the longest file name.

    >>> record_path(Path("w"), "metadata", "a.tif").as_posix()
    'w/.snakemake/metadata/YS50aWY='
    """
    longest = 255 - 1
    text = base64.urlsafe_b64encode(name.encode()).decode()
    parts = [text[start : start + longest] for start in range(0, len(text), longest)]
    folders = [f"@{part}" for part in parts[:-1]]
    return Path(directory, ".snakemake", kind, *folders, parts[-1])


def _locks(directory: Path, kind: str) -> list[Path]:
    return sorted((directory / ".snakemake" / "locks").glob(f"*.{kind}.lock"))


def _run_began_s(directory: Path) -> float:
    times = [lock.stat().st_mtime for lock in _locks(directory, "output")]
    return min(times, default=float("inf"))


def _in_order(directory: Path, job: PlannedJob) -> bool:
    """Whether a job's outputs are at least as new as its inputs."""
    try:
        made = [(directory / path).stat().st_mtime for path in job.output]
        read = [(directory / path).stat().st_mtime for path in job.input]
    except OSError:
        return False
    return max(read, default=0) <= min(made)


def _wait_for_local_jobs(settings: Resume) -> None:
    """Wait for scripts of a killed run on this machine, which continue as well, or stop them."""
    last, asked = 0, dict[int, float]()
    while jobs := local_jobs(settings.directory):
        if settings.cancel == "all":
            _stop(jobs, asked)
        if len(jobs) != last:
            doing = "stopping them" if settings.cancel == "all" else "waiting"
            print(f"{len(jobs)} job(s) of the killed run still run on this machine; {doing} ...")
            last = len(jobs)
        time.sleep(min(settings.poll_s, 2))


def _stop(jobs: list[int], asked: dict[int, float]) -> None:
    """Ask each job once to end, and kill it where it does not: a job leaves no half file."""
    now = time.monotonic()
    for job in jobs:
        with contextlib.suppress(ProcessLookupError):
            if job not in asked:
                asked[job] = now
                os.kill(job, signal.SIGTERM)
            elif now - asked[job] > GRACE_S:
                os.kill(job, signal.SIGKILL)


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
