"""Ask Snakemake which jobs it would run, with their resources.

`snakemake --dry-run` prints no resources for rules that have a message; its log events carry
them. They are read by a filter on its logger, in a process of its own.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from voxmill.runtime.errors import VoxmillError

ON_CLUSTER = "VOXMILL_ON_CLUSTER"


@dataclass(frozen=True)
class PlannedJob:
    """A job that Snakemake would run.

    Attributes
    ----------
    rule : str
    input, output, log : list of str
        Files, relative to the working directory.
    resources : dict
        Numbers and texts by name.
    threads : int
    """

    rule: str
    input: list[str]
    output: list[str]
    log: list[str]
    resources: dict
    threads: int


def planned_jobs(arguments: list[str]) -> list[PlannedJob]:
    """Jobs that `snakemake ARGUMENTS` would run now.

    Raises
    ------
    VoxmillError
        If Snakemake refuses; the message has what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "jobs.json"
        done = subprocess.run(
            [sys.executable, "-m", "voxmill.slurm.dag", str(found), *arguments],
            # A dry run has no executor that would tell the rules that they are on a cluster.
            env=os.environ | {ON_CLUSTER: "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not found.exists():
            # In a dry run Snakemake prints its errors to standard output.
            said = f"{done.stderr.strip()}\n{done.stdout.strip()}"[-3000:].strip()
            raise VoxmillError(f"snakemake --dry-run failed:\n{said}")
        return [PlannedJob(**job) for job in json.loads(found.read_text(encoding="utf-8"))]


class _Recorder(logging.Filter):
    """Keeps what Snakemake logs about each job; lets everything pass."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[PlannedJob] = []

    def filter(self, record: logging.LogRecord) -> bool:
        if getattr(record, "event", None) is not None and hasattr(record, "rule_name"):
            self._keep(record)
        return True

    def _keep(self, record: logging.LogRecord) -> None:
        if not hasattr(record, "resources") or not hasattr(record, "output"):
            return
        resources = {
            name: value
            for name, value in record.resources.items()
            if not name.startswith("_") and type(value) in (int, float, str)
        }
        self.jobs.append(
            PlannedJob(
                rule=record.rule_name,
                input=[str(path) for path in record.input],
                output=[_plain(path) for path in record.output],
                log=[str(path) for path in record.log],
                resources=resources,
                threads=record.threads,
            )
        )


def _plain(path) -> str:
    """An output's path, without what Snakemake's log adds to some.

    >>> _plain("a/b.json (update)")
    'a/b.json'
    """
    return str(path).removesuffix(" (update)")


def _main(found: str, arguments: list[str]) -> int:
    from snakemake.cli import main
    from snakemake.logging import logger

    recorder = _Recorder()
    logger.addFilter(recorder)
    status = 0
    try:
        main(["--dry-run", *arguments])
    except SystemExit as end:
        status = int(end.code or 0)
    jobs = {tuple(job.output) or job.rule: asdict(job) for job in recorder.jobs}
    if status == 0:
        Path(found).write_text(json.dumps(list(jobs.values())), encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], sys.argv[2:]))
