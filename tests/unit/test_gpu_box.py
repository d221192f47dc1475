"""benchmarks/gpu.py on an emulated GPU box: a few packages, PyTorch for CPUs, no network."""

import argparse
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import gpu
import gpu_table

from voxmill.runtime.errors import VoxmillError

ROOT = Path(__file__).resolve().parents[2]
# What such a machine has, with what these need; and what `gpu.py pack` brings.
INSTALLED = (
    "torch", "triton", "numpy", "scipy", "scikit-image", "tifffile", "pandas", "pyyaml",
    "safetensors", "tqdm", "pytest",
)  # fmt: skip


def needed(names):
    """Distributions with all that they require."""
    found, left = set(), list(names)
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop().lower())
        if name in found:
            continue
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # for another system
            continue
        found.add(name)
        left += [re.match(r"[\w.-]+", r)[0] for r in requirements if "extra ==" not in r]
    return found


def link(distribution, folder):
    """Put what a distribution installs into a folder."""
    tops = {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
    for top in tops:
        if not top.endswith(".pth") and not (folder / top).exists():
            (folder / top).symlink_to(Path(distribution.locate_file(top)))


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    """A Python in which nothing else can be imported, and the environment of its processes."""
    folder, packages = tmp_path_factory.mktemp("box"), tmp_path_factory.mktemp("packages")
    venv.create(folder, symlinks=True, with_pip=False)
    (site,) = folder.glob("lib/python3*/site-packages")
    for names, place in ((needed(INSTALLED), site), (gpu.PACKED, packages)):
        for name in names:
            link(importlib.metadata.distribution(name), place)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment |= {"OMP_NUM_THREADS": "1", "VOXMILL_GPU_PACKAGES": str(packages)}
    return str(folder / "bin" / "python"), environment


def run(box, output, *arguments, **changes):
    python, environment = box
    command = [python, str(ROOT / "benchmarks" / "gpu.py"), *arguments, "--output", str(output)]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment | changes, cwd=ROOT
    )


def test_the_box_has_no_other_packages(box):
    python, environment = box
    for module in ("nibabel", "zarr", "snakemake", "matplotlib", "hypothesis", "pydantic"):
        done = subprocess.run(
            [python, "-c", f"import {module}"], capture_output=True, text=True, env=environment
        )
        assert f"No module named '{module}'" in done.stderr


def test_the_box_can_collect_all_tests_for_gpus(box):
    python, environment = box
    files = [str(ROOT / "tests" / "unit" / name) for name in gpu.files_of_gpu_tests()]
    done = subprocess.run(
        [python, "-m", "pytest", "--noconftest", "--collect-only", "-q", "-m", "gpu", *files],
        capture_output=True, text=True, cwd=ROOT,
        env=environment | {
            "PYTHONPATH": environment["VOXMILL_GPU_PACKAGES"],
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert all(Path(name).name in done.stdout for name in files)


def test_all_steps_run_in_miniature(box, tmp_path):
    steps = {
        "A": ("gpu-fused:float16", "torch:float32"),
        "B": ("torch:float32",),
        "C": ("torch:float32",),
    }
    for step, rows in steps.items():
        done = run(box, tmp_path, step, "--mini", "--rows", *rows)
        assert done.returncode == 0, done.stderr
        assert "PROBLEM" not in done.stdout
    found = gpu_table.read_rows(tmp_path / "rows.jsonl")
    assert [each["row"]["kind"] for each in found] == [
        *("machine", "tests", "engine", "engine"), *("machine", "profile", "whole"),
        *("machine", "fit", "block"),
    ]  # fmt: skip
    by_kind = {each["row"]["kind"]: each for each in found}
    assert "2 passed" in by_kind["tests"]["summary"]
    assert all(each["max_difference"] < 1e-3 for each in found if "max_difference" in each)
    assert by_kind["fit"]["peak_bytes"][0] > by_kind["fit"]["predicted_bytes"][0] > 0
    assert sum(kernel["share"] for kernel in by_kind["profile"]["kernels"]) > 0.5
    assert 0 < by_kind["whole"]["mean"] < 1
    # Again: nothing is measured twice.
    done = run(box, tmp_path, "B", "--mini", "--rows", *steps["B"])
    assert done.stdout.count("there already") == 3
    assert gpu_table.read_rows(tmp_path / "rows.jsonl") == found
    # The table comes from the summary.
    page = tmp_path / "page.md"
    page.write_text(f"before\n{gpu_table.BEGIN}\nold\n{gpu_table.END}\nafter\n")
    gpu_table.put_into(page, gpu_table.write_table(tmp_path))
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| torch | float32 | 4 x 4 x 4 |" in text and "### Kernels of torch, float32" in text
    assert "| fit | bfloat16 | yes | yes | yes | 1 |" in text


def test_without_a_gpu_nothing_is_measured(box, tmp_path):
    done = run(box, tmp_path, "C", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 1
    assert done.stderr == ("benchmarks/gpu.py: there is no CUDA device: nothing was measured\n")
    assert gpu_table.read_rows(tmp_path / "rows.jsonl") == []


# --- without processes -------------------------------------------------------------------------


def given(tmp_path, *arguments):
    return gpu.parse(["A", "--mini", "--output", str(tmp_path), *arguments])


@pytest.fixture
def measured(monkeypatch):
    """Rows that were measured; each takes no time and gives a figure."""
    rows = []

    def measure(row, setup, limit_s):
        rows.append(row)
        if row.get("backend") == "gpu-direct":
            return {"problem": "a fault"}
        return {
            "card": "CPU",
            "copied_bytes_per_s": 1e9,
            "float16_flop_per_s": 1e12,
            "versions": {},
        }

    monkeypatch.setattr(gpu, "measure", measure)
    return rows


def test_each_row_is_kept_before_the_next_one_begins(tmp_path, measured, monkeypatch, capsys):
    measure = gpu.measure

    def last_one_fails(row, setup, limit_s):
        if row.get("backend") == "torch":
            raise KeyboardInterrupt
        return measure(row, setup, limit_s)

    monkeypatch.setattr(gpu, "measure", last_one_fails)
    with pytest.raises(KeyboardInterrupt):
        gpu.run_step("A", given(tmp_path))
    path = tmp_path / "rows.jsonl"
    kept = gpu_table.read_rows(path)
    assert [each["row"] for each in kept] == measured
    # Cut off in the middle of a line, it goes on with what is missing or had a problem.
    path.write_text(path.read_text() + '{"row": {"st')
    measured.clear()
    monkeypatch.setattr(gpu, "measure", measure)
    gpu.run_step("A", given(tmp_path))
    assert [row["backend"] for row in measured] == ["gpu-direct", "gpu-direct", "torch", "torch"]


def test_rows_and_sizes_are_selectable(tmp_path, measured):
    gpu.run_step("A", given(tmp_path, "--rows", "torch:float16", "--sizes", "4", "6"))
    boxes = [(r["backend"], r["precision"], r["edge"]) for r in measured if r["kind"] == "engine"]
    assert boxes == [("torch", "float16", 4), ("torch", "float16", 6)]


def test_a_step_ends_in_time(tmp_path, measured, capsys):
    with pytest.raises(SystemExit, match="the step's 0 minutes are over: nothing was measured"):
        gpu.run_step("A", given(tmp_path, "--minutes", "0"))
    assert not measured


def test_a_row_that_takes_too_long_or_fails_is_a_problem():
    setup = {**gpu.MINI, "mini": True}
    found = gpu.measure({"kind": "machine"}, setup, 0.01)
    assert found == {"problem": "not done after 0 s", "errors": ""}
    found = gpu.measure({"kind": "no such row"}, setup, 60)
    assert found["problem"] == "exit status 1: KeyError: 'no such row'"
    assert "gpu_rows.py" in found["errors"]


def test_the_real_steps():
    real = argparse.Namespace(**gpu.FULL, rows=None, mini=False)
    a, b, c = (gpu.STEPS[step](real) for step in "ABC")
    files = [row["file"] for row in a if row["kind"] == "tests"]
    assert a[0]["file"] == files[0] and [row["file"] for row in a[1 - len(files) :]] == files[1:]
    assert files[0] == "test_engine_gpu.py" and "test_denoising_memory.py" in files
    assert [row.get("edge") for row in a[: 1 - len(files)]][1:] == [64] * 8 + [128] * 8 + [256] * 8
    assert [(row["kind"], row["precision"]) for row in b] == [
        ("profile", "float16"), ("whole", "float16"),
        ("profile", "float16"), ("profile", "float32"),
    ]  # fmt: skip
    assert {row["kind"] for row in c} == {"fit", "block"}
    assert {"torch", "gpu-fourier"} <= {row.get("backend") for row in c}


def test_summary_by_hand(tmp_path):
    setup = {"volume": [8, 8, 8]}
    machine = {"row": {"step": "A", "kind": "machine"}, "setup": setup, "card": "H"}
    machine |= {"copied_bytes_per_s": 2e12, "float16_flop_per_s": 8e14}
    row = {"step": "A", "kind": "engine", "backend": "torch", "precision": "float16", "edge": 64}
    figure = {"row": row, "setup": setup, "card": "H", "voxels_per_s": 1e9, "flop_per_s": 2e14}
    other = {**figure, "card": "another"}, {**row, "step": "B"}
    rows = [machine, figure, {"row": row, "setup": setup, "problem": "later fault"}]
    for each in [*rows, {**other[0], "row": other[1]}]:
        gpu.append(tmp_path / "rows.jsonl", each)
    summary = gpu_table.write_summary(tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert summary["machines"] == [machine]
    found = summary["rows"][1]
    # 2000 bytes could be copied in the time of a voxel; a quarter of the matrix rate.
    assert found["ratios"] == {"copied_bytes_per_voxel": 2000.0, "of_matrix_rate": 0.25}
    assert "problem" not in found
    assert "ratios" not in summary["rows"][2]  # of another card


def test_a_problem_is_shown_in_the_table(tmp_path):
    row = {"step": "A", "kind": "engine", "backend": "torch", "precision": "float16", "edge": 64}
    gpu.append(tmp_path / "rows.jsonl", {"row": row, "setup": {}, "problem": "no | memory"})
    gpu_table.write_summary(tmp_path)
    assert "| torch | float16 | no / memory |" in gpu_table.write_table(tmp_path)


def test_a_page_without_marks_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("no marks")
    with pytest.raises(VoxmillError, match="expected the lines <!-- measured: begin -->"):
        gpu_table.put_into(page, "table")
    assert gpu_table.BEGIN in (ROOT / "docs" / "gpu.md").read_text()


def test_packed_packages_have_the_locked_versions(monkeypatch):
    commands = []
    monkeypatch.setattr(gpu.subprocess, "run", lambda command, check: commands.append(command))
    gpu.pack("3.12")
    (command,) = commands
    assert command[command.index("--python-version") + 1] == "3.12"
    names = ("requirements.lock", "requirements-dev.lock")
    locked = [line for name in names for line in (ROOT / name).read_text().splitlines()]
    packed = command[command.index("--target") + 2 :]
    assert len(packed) == len(gpu.PACKED) and set(packed) <= set(locked)
