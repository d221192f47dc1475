"""Run the workflow on a test cluster and read the records of its jobs."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from voxmill.runtime.records import RECORD_SUFFIX
from voxmill.slurm import table

ROOT = Path(__file__).resolve().parents[2]
# Snakemake notices a finished job within 2 s instead of 20 (see polling/): test jobs are short.
POLL = ["--slurm-init-seconds-before-status-checks", "2", "--max-status-checks-per-second", "1"]


@dataclass
class Workspace:
    """A working directory and how to run Snakemake in it on a cluster.

    Attributes
    ----------
    folder : path
        Working directory.
    cluster : Cluster
    arguments : list of str
        Snakefile and configuration.
    environment : dict
        Variables that each command gets in addition.
    """

    folder: Path
    cluster: Cluster
    arguments: list[str]
    environment: dict[str, str] = field(default_factory=dict)

    def variables(self) -> dict[str, str]:
        """Environment of the commands: jobs with fake GPUs compute on the CPU with one thread."""
        return (
            self.cluster.environment()
            | {
                "VOXMILL_ALLOW_CPU": "1",
                "PYTHONPATH": f"{ROOT}:{Path(__file__).parent / 'polling'}",
                "OMP_NUM_THREADS": "1",
                "PATH": f"{Path(sys.executable).parent}:{self.cluster.environment()['PATH']}",
            }
            | self.environment
        )

    def command(self, *targets: str, options: tuple[str, ...] = ()) -> list[str]:
        """Command that runs Snakemake with the shipped profile."""
        return [
            *(sys.executable, "-m", "snakemake", "--profile", "slurm"),
            *("--directory", str(self.folder), *self.arguments),
            *(*POLL, *options, "--", *targets),
        ]

    def snakemake(
        self, *targets: str, options: tuple[str, ...] = (), check: bool = True, timeout_s: int = 600
    ) -> subprocess.CompletedProcess:
        """Run Snakemake to its end."""
        return self.call(self.command(*targets, options=options), check, timeout_s)

    def start(self, *targets: str, options: tuple[str, ...] = ()) -> subprocess.Popen:
        """Start Snakemake and return at once; its output goes to `scheduler.log`."""
        with (self.folder / "scheduler.log").open("wb") as log:
            return subprocess.Popen(
                self.command(*targets, options=options),
                cwd=ROOT,
                env=self.variables(),
                stdout=log,
                stderr=log,
                start_new_session=True,
                # Where the tests run in the background of a shell, SIGINT is ignored and children
                # inherit that.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def voxmill(
        self, *arguments: str, snakemake: tuple[str, ...] = (), check: bool = True
    ) -> subprocess.CompletedProcess:
        """Run `python -m voxmill.slurm`."""
        name, *others = arguments
        command = [sys.executable, "-m", "voxmill.slurm", name, "--directory", str(self.folder)]
        passed = ["--", *self.arguments, *snakemake] if name != "table" else []
        return self.call([*command, *others, *passed], check, 600)

    def call(self, command, check: bool, timeout_s: int) -> subprocess.CompletedProcess:
        """Run a command in the repository's root; kill it and its children after the timeout."""
        with subprocess.Popen(
            command,
            cwd=ROOT,
            env=self.variables(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                out, errors = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                out, errors = process.communicate()
                pytest.fail(f"not finished after {timeout_s} s: {errors[-4000:]}", pytrace=False)
        if check and process.returncode:
            pytest.fail(f"status {process.returncode}: {out[-2000:]}\n{errors[-6000:]}", False)
        return subprocess.CompletedProcess(command, process.returncode, out, errors)

    def jobs(self) -> list[dict[str, str]]:
        """SLURM's own record of every job and array task of this folder, oldest first."""
        rows = []
        for line in self.cluster.run("scontrol", "--oneliner", "show", "job").splitlines():
            row = dict(re.findall(r"(\w+)=(\S*)", line))
            if os.path.realpath(row.get("WorkDir", "/")) != os.path.realpath(self.folder):
                continue
            task = row.get("ArrayTaskId")
            row["id"] = f"{row['ArrayJobId']}_{task}" if task else row["JobId"]
            asked = re.findall(r"gpu(?::\w+)?:(\d+)", row.get("TresPerJob", ""))
            row["gpus"] = asked[0] if asked else "0"
            rows.append(row)
        return sorted(rows, key=lambda row: int(row["JobId"]))

    def predictions(self) -> list[dict[str, str]]:
        """SLURM's record of the prediction jobs."""
        return [row for row in self.jobs() if "rule_predict_tile" in row.get("Comment", "")]


def tries(work: Workspace) -> dict[str, list[dict]]:
    """Records of the jobs of each tile, one a try, by tile."""
    found = {}
    for path in sorted((work.folder / "logs").rglob(f"predict_tile/*{RECORD_SUFFIX}")):
        found[path.name.removesuffix(RECORD_SUFFIX)] = table.read_tries(path)
    return found


def wait_until(condition, timeout_s: float, what: str):
    """Poll until `condition()` is true; returns its value."""
    end = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            pytest.fail(f"waited {timeout_s} s for: {what}", pytrace=False)
        time.sleep(0.2)
