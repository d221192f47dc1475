"""Fixtures: a real SLURM, and the workflow in miniature on it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.slurm.cluster import Cluster, ClusterError, base_folder, missing_programs, sweep
from tests.slurm.workspace import ROOT, Workspace, wait_until


def pytest_collection_modifyitems(items):
    """Run all tests of this folder in one process of pytest-xdist, since they share a cluster."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slurm)
            item.add_marker(pytest.mark.xdist_group("slurm"))


def _installed(accounting: bool) -> None:
    if not missing_programs(accounting):
        return
    script = Path(__file__).parents[1] / "install.sh"
    command = [str(script), "accounting" if accounting else "slurm"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode or missing_programs(accounting):
        missing = ", ".join(missing_programs(accounting))
        pytest.skip(
            f"SLURM is not installed ({missing}) and cannot be installed: {done.stderr.strip()}"
        )


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
    """Two nodes with two GPUs each, for tests that do not damage the cluster."""
    started = _started("c", max_array_size=201)
    yield started
    _ended(started)


@pytest.fixture
def cluster(shared_cluster):
    """The shared cluster without jobs of other tests."""
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


@pytest.fixture
def mini(cluster, tmp_path):
    """A function that makes the workflow in miniature on the shared cluster from settings."""
    return _miniature(cluster, tmp_path)


@pytest.fixture
def own_mini(own_cluster, tmp_path):
    """The same function on a cluster that the test may damage."""
    return _miniature(own_cluster, tmp_path)


def _miniature(cluster: Cluster, folder: Path):
    def configure(**config) -> Workspace:
        path = folder / "mini.yaml"
        path.write_text(yaml.safe_dump(config))
        arguments = ["-s", str(ROOT / "tests/slurm/mini/Snakefile"), "--configfile", str(path)]
        return Workspace(folder, cluster, arguments)

    return configure
