"""A real SLURM for the tests, and ways to run the workflow on it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from cluster import Cluster, ClusterError, base_folder, missing_programs, sweep

ROOT = Path(__file__).resolve().parents[2]
# A finished job is noticed after 3 s instead of 20: these jobs take seconds.
POLL = ["--slurm-init-seconds-before-status-checks", "3", "--max-status-checks-per-second", "1"]


def pytest_collection_modifyitems(items):
    """All tests of one cluster run in one process of pytest-xdist: they share its nodes."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slurm)
            item.add_marker(pytest.mark.xdist_group("slurm"))


def _installed(accounting: bool) -> None:
    if not missing_programs(accounting):
        return
    command = [str(Path(__file__).parent / "install.sh"), *(["--accounting"] * accounting)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode or missing_programs(accounting):
        missing = ", ".join(missing_programs(accounting))
        pytest.skip(f"SLURM is not installed ({missing}) and cannot be: {done.stderr.strip()}")


def _started(name: str, **settings) -> Cluster:
    _installed(settings.get("accounting", False))
    sweep()
    folder = base_folder() / f"{os.getpid()}-{name}"
    try:
        return Cluster(folder, **settings).start()
    except ClusterError as error:
        pytest.fail(f"The test cluster did not start: {error}", pytrace=False)


def _ended(cluster: Cluster) -> None:
    cluster.stop()
    shutil.rmtree(cluster.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_cluster():
    """Two nodes with two GPUs each, for all tests that leave the cluster as it was."""
    started = _started("c", max_array_size=201)
    yield started
    _ended(started)


@pytest.fixture
def cluster(shared_cluster):
    """The shared cluster, with no job left from another test."""
    yield shared_cluster
    shared_cluster.run("scancel", "--full", "--quiet", "--user", str(os.getuid()), check=False)
    wait_until(lambda: not shared_cluster.run("squeue", "--noheader").strip(), 30, "empty queue")


@pytest.fixture
def own_cluster():
    """A cluster that the test may damage."""
    started = _started("o")
    yield started
    _ended(started)


@pytest.fixture(scope="session")
def accounting_cluster():
    """A cluster with slurmdbd, so that accounts and sacct work."""
    started = _started("a", accounting=True)
    yield started
    _ended(started)


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
        Added to that of each command.
    """

    folder: Path
    cluster: Cluster
    arguments: list[str]
    environment: dict[str, str] = field(default_factory=dict)

    def variables(self) -> dict[str, str]:
        """Environment of the commands: fake GPUs compute on the CPU, with one thread."""
        return (
            self.cluster.environment()
            | {
                "VOXMILL_ALLOW_CPU": "1",
                "PYTHONPATH": str(ROOT),
                "OMP_NUM_THREADS": "1",
                "PATH": f"{Path(sys.executable).parent}:{self.cluster.environment()['PATH']}",
            }
            | self.environment
        )

    def command(self, *targets: str, options: tuple[str, ...] = ()) -> list[str]:
        """Snakemake with the shipped profile."""
        return [
            *(sys.executable, "-m", "snakemake", "--profile", "slurm"),
            *("--directory", str(self.folder), *self.arguments),
            *(*POLL, *options, "--", *targets),
        ]

    def snakemake(
        self, *targets: str, options: tuple[str, ...] = (), check: bool = True, timeout_s: int = 240
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
            )

    def voxmill(
        self, *arguments: str, snakemake: tuple[str, ...] = (), check: bool = True
    ) -> subprocess.CompletedProcess:
        """Run `python -m voxmill.slurm`."""
        name, *others = arguments
        command = [sys.executable, "-m", "voxmill.slurm", name, "--directory", str(self.folder)]
        passed = ["--", *self.arguments, *snakemake] if name != "table" else []
        return self.call([*command, *others, *passed], check, 240)

    def call(self, command, check: bool, timeout_s: int) -> subprocess.CompletedProcess:
        """Run a command in the repository's root; it is killed with its children in time."""
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
                pytest.fail(f"no end in {timeout_s} s: {errors[-4000:]}", pytrace=False)
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


def wait_until(condition, timeout_s: float, what: str):
    """Poll until `condition()` is true; return what it gave."""
    end = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            pytest.fail(f"waited {timeout_s} s for: {what}", pytrace=False)
        time.sleep(0.2)
