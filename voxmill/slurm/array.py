"""The prediction stage as SLURM job arrays: one task a tile (or a batch of tiles).

`submit` submits three kinds of jobs and returns; no process keeps running on the login node:

1. one job that makes the input of the predictions (the tiles), if any of it is missing,
2. arrays with one task a tile; each task runs Snakemake for its tile alone,
3. one job that starts when all tasks have ended: it submits the failed tiles again with more
   memory and time, or runs the rest of the workflow, or names the tiles that failed.

Each task records its tile as Snakemake does, so that any later run finds it done. Tasks run at the
same time in one working directory: without Snakemake's lock, which would allow only one, and with
one file of records for each output.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import write_json, write_text
from voxmill.slurm import commands
from voxmill.slurm.dag import ON_CLUSTER, PlannedJob, planned_jobs, upstream

RULES = ("predict_tile", "predict_batch")
STAGE = "predict"


@dataclass(frozen=True)
class ArrayRun:
    """Settings of one run by arrays.

    Attributes
    ----------
    directory : str
        Working directory of the workflow, absolute.
    arguments : list of str
        Arguments for Snakemake, such as `--configfile`; no targets.
    targets : list of str
        What to make when all tiles are there; empty for the default target.
    profile : str
        Profile with the cluster's settings.
    name : str
        Name of the run's jobs and of its folder below logs/slurm.
    limit : int
        Tasks that may run at the same time; 0 for no limit.
    chunk : int
        Most tasks in one array; 0 for the cluster's MaxArraySize.
    retries : int
        How often failed tiles are submitted again.
    attempt : int
        Number of this try, from 1; rules ask for more memory and time with each.
    stage_cpus, stage_minutes : int
        Cores and walltime of the jobs before and after the arrays.
    """

    directory: str
    arguments: list[str]
    targets: list[str]
    profile: str = "slurm"
    name: str = ""
    limit: int = 0
    chunk: int = 0
    retries: int = 2
    attempt: int = 1
    stage_cpus: int = 4
    stage_minutes: int = 240

    @property
    def folder(self) -> Path:
        """Where the run keeps its task lists, scripts and logs."""
        return Path(self.directory) / "logs" / "slurm" / self.name


@dataclass(frozen=True)
class Stages:
    """What is left to do: jobs before the predictions, the predictions, jobs after them."""

    before: list[PlannedJob]
    predictions: list[PlannedJob]
    after: list[PlannedJob]


def submit(run: ArrayRun) -> list[str]:
    """Submit all jobs of a run that are left to do; sets its name, returns the job numbers.

    Raises
    ------
    VoxmillError
        If jobs of this working directory are still in SLURM's queue, Snakemake reports an error in
        the workflow, or SLURM refuses a job.
    """
    prefix = commands.profile_prefix(run.profile)
    busy = commands.jobs_of(Path(run.directory), prefix)
    if busy:
        raise VoxmillError(
            f"{len(busy)} job(s) of this folder are still in SLURM's queue (the first is "
            f"{busy[0].job_id}, {busy[0].name}): two runs would make the same tiles. Wait for "
            "them, or run `make resume` (python -m voxmill.slurm resume)."
        )
    stamp = time.strftime("%Y%m%d-%H%M%S")
    run = replace(run, name=f"{prefix}_array_{stamp}_{os.getpid()}", attempt=1)
    stages = left_to_do(run)
    if not stages.predictions:
        print("No tile is left to predict: run `snakemake --profile slurm` for the rest.")
        return []
    before = _submit_before(run, stages)
    return before + _submit_round(run, stages, before)


def go_on(folder: str | Path) -> int:
    """Do the work of the job after the arrays; returns its exit status."""
    run = ArrayRun(**json.loads((Path(folder) / "run.json").read_text(encoding="utf-8")))
    stages = left_to_do(run)
    if stages.before:
        missing = ", ".join(stages.before[0].output)
        print(f"Input of the predictions is missing: {missing} and more.")
        print(f"See the log of the job before the arrays, {run.folder}/before.log")
        return 1
    if stages.predictions and run.attempt <= run.retries:
        run = replace(run, attempt=run.attempt + 1)
        print(f"{len(stages.predictions)} tile(s) failed: try {run.attempt} of {run.retries + 1}.")
        _submit_round(run, left_to_do(run), [])
        return 0
    if stages.predictions:
        print(f"{len(stages.predictions)} tile(s) failed in all {run.attempt} tries:")
        for job in stages.predictions:
            print(f"  {job.output[0]}  (log: {', '.join(job.log) or 'none'})")
        print(f"SLURM's logs are in {run.folder}. The other tiles are kept: submit again.")
        return 1
    print("All tiles are done; the rest of the workflow follows.")
    limits = _stage_limits(run, stages.after)
    rest = ["-m", "snakemake", *_common(run), *limits, "--", *run.targets]
    return subprocess.call([sys.executable, *rest])


def left_to_do(run: ArrayRun) -> Stages:
    """Ask Snakemake which jobs are left, with the resources of this attempt."""
    arguments = [*_common(run), "--attempt", str(run.attempt)]
    for_tiles = planned_jobs([*arguments, "--", STAGE])
    everything = planned_jobs([*arguments, "--", *run.targets])
    predictions = [job for job in for_tiles if job.rule in RULES]
    before = upstream(predictions, [job for job in for_tiles if job.rule not in RULES])
    known = {tuple(job.output) for job in [*before, *predictions]}
    after = [job for job in everything if tuple(job.output) not in known]
    return Stages(before, predictions, after)


def _submit_before(run: ArrayRun, stages: Stages) -> list[str]:
    if not stages.before:
        return []
    limits = _stage_limits(run, stages.before)
    arguments = [*_common(run), *limits, "--omit-from", *_rules(stages.predictions)]
    job_id = commands.submit(
        [*_stage_options(run, stages.before), f"--output={run.folder}/before.log"],
        _script(run, ["-m", "snakemake", *arguments, "--", STAGE]),
    )
    print(f"{job_id}: {len(stages.before)} job(s) before the predictions")
    return [job_id]


def _submit_round(run: ArrayRun, stages: Stages, before: list[str]) -> list[str]:
    """Submit the arrays of one attempt and the job that follows them."""
    arrays: list[str] = []
    jobs = sorted(stages.predictions, key=lambda job: job.output)
    size = min(run.chunk or sys.maxsize, commands.max_array_size())
    tasks = run.folder / f"tiles-{run.attempt}.txt"
    write_text(tasks, "".join(f"{job.output[0]}\n" for job in jobs))
    write_json(run.folder / "run.json", asdict(run))
    try:
        for start in range(0, len(jobs), size):
            part = jobs[start : start + size]
            # A limit applies to one array, so arrays with a limit run one after the other.
            waits = [f"afterok:{job}" for job in before]
            waits += [f"afterany:{arrays[-1]}"] if arrays and run.limit else []
            arrays.append(_submit_array(run, part, tasks, start, ",".join(waits)))
            print(f"{arrays[-1]}: array of {len(part)} task(s), try {run.attempt}")
        last = commands.submit(
            [
                *_stage_options(run, stages.after or stages.before or jobs),
                f"--dependency=afterany:{':'.join([*before, *arrays])}",
                f"--output={run.folder}/after-{run.attempt}.log",
            ],
            _script(run, ["-m", "voxmill.slurm", "continue", str(run.folder)]),
        )
    except VoxmillError:
        # Without the job that follows them, nothing would check the result of the arrays.
        commands.run(["scancel", "--quiet", *before, *arrays])
        raise
    print(f"{last}: the job that follows; its log is {run.folder}/after-{run.attempt}.log")
    return [*arrays, last]


def _submit_array(
    run: ArrayRun, jobs: list[PlannedJob], tasks: Path, start: int, after: str
) -> str:
    limit = f"%{run.limit}" if run.limit else ""
    options = [
        f"--job-name={run.name}",
        f"--comment=rule_{jobs[0].rule}_array",
        f"--array=0-{len(jobs) - 1}{limit}",
        f"--output={run.folder}/%A_%a.log",
        f"--chdir={run.directory}",
        *commands.resource_options(most(jobs), max(job.threads for job in jobs)),
    ]
    if after:
        # Otherwise a job whose dependency can no longer be met would wait for ever.
        options += [f"--dependency={after}", "--kill-on-invalid-dep=yes"]
    arguments = [
        *("-m", "snakemake", *_common(run), "--executor", "local"),
        # The lock would allow one task at a time; no two tasks make the same file.
        *("--nolock", "--allowed-rules", *_rules(jobs)),
        *("--attempt", str(run.attempt), "--retries", "0"),
    ]
    line = f'$(sed -n "$(({start} + SLURM_ARRAY_TASK_ID + 1))p" {shlex.quote(str(tasks))})'
    script = _script(run, arguments, f' --cores "${{SLURM_CPUS_PER_TASK:-1}}" -- "{line}"')
    return commands.submit(options, script)


def _rules(jobs: list[PlannedJob]) -> list[str]:
    return sorted({job.rule for job in jobs})


def most(jobs: list[PlannedJob]) -> dict:
    """Return resources that are enough for each of the jobs: the largest number of each.

    >>> job = PlannedJob("r", [], [], [], {"mem_mb": 10, "qos": "a"}, 1)
    >>> most([job, replace(job, resources={"mem_mb": 30, "qos": "a"})])
    {'mem_mb': 30, 'qos': 'a'}
    """
    found: dict = {}
    for job in jobs:
        for name, value in job.resources.items():
            if isinstance(value, (int, float)) and isinstance(found.get(name), (int, float)):
                value = max(value, found[name])
            found[name] = value
    return found


def _common(run: ArrayRun) -> list[str]:
    return ["--profile", run.profile, "--directory", run.directory, *run.arguments]


def _stage_options(run: ArrayRun, jobs: list[PlannedJob]) -> list[str]:
    """Options of sbatch for a job that runs other jobs of the workflow."""
    memory = _stage_memory_mb(run, jobs)
    resources = most(jobs) | {"runtime": run.stage_minutes, "mem_mb": memory}
    return [
        f"--job-name={run.name}",
        f"--chdir={run.directory}",
        *commands.resource_options(resources, run.stage_cpus),
    ]


def _stage_limits(run: ArrayRun, jobs: list[PlannedJob]) -> list[str]:
    """Arguments of Snakemake that keep it within the resources of its own job."""
    resources = most(jobs) | {"mem_mb": _stage_memory_mb(run, jobs)}
    limits = [f"{name}={resources[name]}" for name in ("mem_mb", "gpu") if resources.get(name)]
    limits = ["--resources", *limits] if limits else []
    return ["--executor", "local", "--cores", str(run.stage_cpus), *limits]


def _stage_memory_mb(run: ArrayRun, jobs: list[PlannedJob]) -> int:
    """Memory for one job a core, at most 4 GB a core unless one job needs more."""
    wanted = sorted((int(job.resources.get("mem_mb", 0)) for job in jobs), reverse=True)
    if not wanted:
        return 0
    return min(sum(wanted[: run.stage_cpus]), max(wanted[0], 4000 * run.stage_cpus))


def _script(run: ArrayRun, arguments: list[str], rest: str = "") -> str:
    """Batch script that runs Python in the folder of the submission and returns its status."""
    here = shlex.quote(os.getcwd())
    return (
        "#!/bin/bash\n"
        f"# Part of {run.name}; see docs/cluster.md.\n"
        f"export {ON_CLUSTER}=1\n"
        f"cd {here} || exit 1\n"
        f"exec {shlex.join([sys.executable, *arguments])}{rest}\n"
    )
