"""The conda environment and the lock file hold the same versions."""

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib"}


def lock(name):
    lines = (ROOT / name).read_text().splitlines()
    return dict(line.lower().split("==") for line in lines if line and not line.startswith("#"))


def test_conda_environments_are_in_step_with_the_lock_file():
    versions = lock("requirements.lock")
    files = sorted((ROOT / "envs").glob("*.yaml"))
    assert files
    for file in files:
        content = yaml.safe_load(file.read_text())
        packages = dict(item.split("=") for item in content["dependencies"])
        assert packages.pop("python")
        for name, version in packages.items():
            assert versions[CONDA_NAMES.get(name, name)] == version, f"{file}: {name}"


def test_every_required_package_is_locked_and_in_the_environment():
    versions = lock("requirements.lock")
    content = yaml.safe_load((ROOT / "envs" / "voxmill.yaml").read_text())
    conda = {item.split("=")[0] for item in content["dependencies"]}
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name = line.split("=")[0].lower()
            assert name in versions
            assert name in {CONDA_NAMES.get(c, c) for c in conda}


def test_the_development_lock_adds_to_the_other():
    assert not set(lock("requirements-dev.lock")) & set(lock("requirements.lock"))


def test_the_locks_of_cuda_add_to_the_other_and_are_those_that_errors_name():
    from voxmill.runtime.cards import WHEELS

    torch, triton = lock("requirements.lock")["torch"], lock("requirements-dev.lock")["triton"]
    for *_, cuda, name in WHEELS:
        text = (ROOT / name).read_text()
        assert "-r requirements.lock" in text.splitlines()
        added = dict(line.split("==") for line in text.splitlines() if "==" in line)
        assert added.pop("torch", f"{torch}+cu126") == f"{torch}+cu126"
        assert not set(added) & set(lock("requirements.lock"))
        assert cuda.replace("CUDA ", "").replace(".", "") in name
        assert added.get("triton", triton) == triton
