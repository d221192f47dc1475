"""Ask Snakemake which jobs it would run, with their resources.

`snakemake --dry-run` prints no resources for rules that have a message, but its log events hold
them. This module runs Snakemake in a separate process with a filter on its logger that reads them.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
        Numbers and strings by name.
    threads : int
    """

    rule: str
    input: list[str]
    output: list[str]
    log: list[str]
    resources: dict
    threads: int


def planned_jobs(arguments: list[str]) -> list[PlannedJob]:
    """List the jobs that `snakemake ARGUMENTS` would run now.

    Raises
    ------
    VoxmillError
        If Snakemake fails; the message holds its output.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "jobs.json"
        done = subprocess.run(
            [sys.executable, "-m", "voxmill.slurm.dag", str(found), *arguments],
            # In a dry run no executor tells the rules that they run on a cluster.
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


def upstream(wanted: list[PlannedJob], jobs: list[PlannedJob]) -> list[PlannedJob]:
    """The jobs that make what others need, and what these need in turn, in their order.

    >>> plan, cut, check = (
    ...     PlannedJob(rule, [given], [made], [], {}, 1)
    ...     for rule, given, made in [("p", "v", "a"), ("c", "a", "b"), ("s", "d", "e")]
    ... )
    >>> predict = PlannedJob("predict_tile", ["b"], ["d"], [], {}, 1)
    >>> [job.rule for job in upstream([predict], [plan, cut, check])]
    ['p', 'c']
    """
    needed, found = {path for job in wanted for path in job.input}, set[int]()
    while fresh := [
        job for job in jobs if id(job) not in found and not needed.isdisjoint(job.output)
    ]:
        found.update(map(id, fresh))
        needed.update(path for job in fresh for path in job.input)
    return [job for job in jobs if id(job) in found]


class _Recorder(logging.Filter):
    """Keeps the jobs that Snakemake logs; rejects no record."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[PlannedJob] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the record's job, if it has one."""
        # Snakemake adds attributes to its records that logging does not know.
        fields = vars(record)
        named = {"rule_name", "resources", "output"} <= fields.keys()
        if named and fields.get("event") is not None:
            self._keep(fields)
        return True

    def _keep(self, fields: dict[str, Any]) -> None:
        resources = {
            name: value
            for name, value in fields["resources"].items()
            if not name.startswith("_") and type(value) in (int, float, str)
        }
        self.jobs.append(
            PlannedJob(
                rule=fields["rule_name"],
                input=[str(path) for path in fields["input"]],
                output=[_plain(path) for path in fields["output"]],
                log=[str(path) for path in fields["log"]],
                resources=resources,
                threads=fields["threads"],
            )
        )


def _plain(path: object) -> str:
    """Return an output's path without the remark that Snakemake's log adds to some.

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
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    jobs = {tuple(job.output) or job.rule: asdict(job) for job in recorder.jobs}
    if status == 0:
        Path(found).write_text(json.dumps(list(jobs.values())), encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], sys.argv[2:]))
