"""SLURM's commands (submit, list, cancel) and the settings that this package needs."""

import getpass
import os
import re
import shlex
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from voxmill.runtime.errors import VoxmillError

PREFIX = "voxmill"
# States in which a job may still write files.
ALIVE = "PENDING,RUNNING,SUSPENDED,COMPLETING,CONFIGURING,REQUEUED,REQUEUE_HOLD,STOPPED,RESIZING"


@dataclass(frozen=True)
class QueuedJob:
    """A job in SLURM's queue.

    Attributes
    ----------
    job_id : str
        As squeue writes it; `12_[3-7]` are the tasks of an array that have not started.
    name, state, workdir : str
    """

    job_id: str
    name: str
    state: str
    workdir: str


def run(
    command: list[str],
    stdin: str | None = None,
    environment: dict[str, str] | None = None,
    timeout_s: float = 120,
) -> str:
    """Run a SLURM command and return its standard output.

    Parameters
    ----------
    command : list of str
    stdin : str, optional
        Standard input.
    environment : dict, optional
        Instead of that of this process.
    timeout_s : float

    Raises
    ------
    VoxmillError
        If it is not installed, fails or does not answer in time; the message holds its errors.
    """
    try:
        done = subprocess.run(
            command,
            input=stdin,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError:
        raise VoxmillError(
            f"{command[0]}: not found. Run this where SLURM's commands work: on a login node."
        ) from None
    except subprocess.TimeoutExpired:
        raise VoxmillError(f"{command[0]}: no answer from SLURM in {timeout_s:.0f} s.") from None
    if done.returncode:
        raise VoxmillError(
            f"{shlex.join(command[:6])} ...: failed with status {done.returncode}: "
            f"{done.stderr.strip() or 'it printed no error'}"
        )
    return done.stdout


def jobs_of(directory: Path, prefix: str = PREFIX) -> list[QueuedJob]:
    """List this user's unfinished jobs that have a name prefix and work in a folder.

    Parameters
    ----------
    directory : path
        The workflow's working directory; jobs of other copies of the workflow are left out.
    prefix : str
        `slurm-jobname-prefix` of the profile.
    """
    separator = "\x1f"
    columns = separator.join(("%i", "%j", "%T", "%Z"))
    user = f"--user={getpass.getuser()}"
    text = run(["squeue", "--noheader", user, f"--states={ALIVE}", "--format", columns])
    found = []
    for line in text.splitlines():
        fields = line.split(separator)
        if len(fields) != 4:
            continue
        job = QueuedJob(*fields)
        ours = job.name.startswith(f"{prefix}_")
        if ours and os.path.realpath(job.workdir) == os.path.realpath(directory):
            found.append(job)
    return found


def cancel(jobs: Iterable[QueuedJob]) -> None:
    """Cancel jobs; those that have just ended are ignored."""
    # squeue adds the limit of an array, such as %2, to its waiting tasks; scancel refuses that.
    ids = [re.sub(r"_\[([\d,-]+)(%\d+)?\]", r"_[\1]", job.job_id) for job in jobs]
    for start in range(0, len(ids), 200):
        run(["scancel", "--quiet", *ids[start : start + 200]])


def submit(options: list[str], script: str) -> str:
    """Submit a batch script; returns the job number."""
    # A job that submits another must not pass on the variables that describe itself.
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == "SLURM_CONF" or not name.startswith(("SLURM_", "SBATCH_", "CUDA_VISIBLE"))
    }
    answer = run(["sbatch", "--parsable", *options], stdin=script, environment=kept)
    # A federation answers "12;cluster"; some sites print a greeting first.
    numbers = re.findall(r"^(\d+)(?:;\S+)?$", answer, flags=re.MULTILINE)
    if not numbers:
        raise VoxmillError(f"sbatch: expected a job number, found {answer.strip()!r}.")
    return numbers[-1]


def max_array_size() -> int:
    """Read the cluster's MaxArraySize; the index of an array task is always below it."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", run(["scontrol", "show", "config"]), re.M)
    return int(found[1]) if found else 1001


def resource_options(resources: dict, threads: int) -> list[str]:
    """Return options of sbatch for resources that are named as in Snakemake's SLURM executor.

    >>> resource_options({"mem_mb": 4000, "runtime": 60, "gpu": 1, "gpu_model": "a100"}, 2)
    ['--cpus-per-task=2', '--mem=4000', '--time=60', '--gpus=a100:1']
    """
    options = [f"--cpus-per-task={threads}"]
    for key, option in (
        ("mem_mb", "--mem"),
        ("runtime", "--time"),
        ("nodes", "--nodes"),
        ("slurm_account", "--account"),
        ("slurm_partition", "--partition"),
        ("qos", "--qos"),
        ("constraint", "--constraint"),
        ("gres", "--gres"),
    ):
        if resources.get(key):
            options.append(f"{option}={resources[key]}")
    if resources.get("gpu"):
        model = f"{resources['gpu_model']}:" if resources.get("gpu_model") else ""
        options.append(f"--gpus={model}{resources['gpu']}")
    return options + shlex.split(str(resources.get("slurm_extra", "")))


def profile_prefix(profile: str) -> str:
    """Read the prefix of job names that a Snakemake profile sets."""
    for folder in (Path(profile), Path("profiles") / profile):
        for path in sorted(folder.glob("config*.yaml")):
            settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            return str(settings.get("slurm-jobname-prefix", PREFIX))
    return PREFIX
