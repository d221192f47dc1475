"""Ways to run the workflow: folders, settings on the command line, as a module, the report."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml

from tests.workflow.conftest import ROOT, Project, make_project
from voxmill.runtime.digests import source_digest
from voxmill.slurm.dag import planned_jobs

ADDRESS = "https://github.com/voxmill/voxmill"


def snakemake(folder, *arguments, ok=True, **environment):
    """Run Snakemake in a folder with what is there; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", *map(str, arguments)],
        cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip
    output = done.stdout + done.stderr
    assert (done.returncode == 0) == ok, output
    return output


@pytest.fixture
def unfinished(tmp_path):
    """A project of which nothing has run."""
    return make_project(tmp_path / "project")


def weights(*arguments):
    """The weights that the predictions of a dry run read."""
    jobs = planned_jobs(["--cores", "1", *map(str, arguments)])
    paths = [path for job in jobs if job.rule == "predict_tile" for path in job.input]
    return {path for path in paths if path.endswith(".safetensors")}


@pytest.mark.parametrize("way", ["--snakefile", "--directory"])
def test_the_demo_is_planned_from_any_folder(way, tmp_path, monkeypatch):
    """Its configuration and the shipped model are the repository's."""
    monkeypatch.chdir(tmp_path if way == "--snakefile" else ROOT)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    given = ROOT / "Snakefile" if way == "--snakefile" else tmp_path
    assert weights(way, given) == {f"{ROOT}/models/phantom.safetensors"}


def test_a_shipped_model_is_found_and_ones_own_of_that_name_comes_first(unfinished, monkeypatch):
    name = "models/phantom.safetensors"
    volume = unfinished.config["volumes"]["v"] | {"model_voxel_size": "ignore"}
    unfinished.configure(networks={"identity": {"weights": name}}, volumes={"v": volume})
    monkeypatch.chdir(unfinished.folder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    arguments = ("--snakefile", ROOT / "Snakefile", "--configfile", "my.yaml")
    assert weights(*arguments) == {f"{ROOT}/{name}"}
    for suffix in (".safetensors", ".json"):
        own = (unfinished.folder / name).with_suffix(suffix)
        shutil.copy((unfinished.folder / "models" / "identity").with_suffix(suffix), own)
    assert weights(*arguments) == {name}


def test_nested_settings_on_the_command_line_are_numbers(project):
    given = ("--config", "evaluation={max_distance_um: 3, distances_um: [1, 2.5]}")
    name = "results/v/identity/evaluation.json"
    # The jobs are given the settings once more, as text as well.
    project.snakemake(name, *given)
    evaluation = json.loads((project.folder / name).read_text())
    assert evaluation["settings"]["max_distance_um"] == 3
    assert evaluation["settings"]["distances_um"] == [1, 2.5]
    assert project.jobs(name, *given) == {}


def test_a_wrong_setting_on_the_command_line_is_named(unfinished):
    said = unfinished.snakemake("--dry-run", "--config", "evaluation={seed: many}", ok=False)
    assert "evaluation.seed: expected an integer" in said


def test_the_report_opens_with_what_it_is(project):
    project.snakemake("--report", "report.html")
    page = (project.folder / "report.html").read_text()
    begin = page.index("voxmill: cells in 3D brain volumes")
    assert "Volumes: <strong>v</strong>" in page[begin : begin + 2000]
    captions = (ROOT / "docs" / "captions").glob("*.rst")
    for caption in captions:
        if caption.stem in ("overview", "comparison"):
            # Up to its first name in bold.
            assert caption.read_text().split("**")[0].strip() in page


OUTER = """
import json

module voxmill:
    snakefile: {snakefile}
    {prefix}
    config: json.load(open("of_module.json"))

use rule * from voxmill as voxmill_*

rule all:
    default_target: True
    input: "results/v/identity/cells.csv", "results/v/plan.json"
"""


def outer(project, snakefile, prefix=""):
    """Make the project a workflow that uses this one as a module."""
    text = OUTER.format(snakefile=snakefile, prefix=prefix)
    (project.folder / "Snakefile").write_text(text)
    content = yaml.safe_load((project.folder / "my.yaml").read_text())
    (project.folder / "of_module.json").write_text(json.dumps(content))
    return project.folder


def run_module(folder, **environment):
    said = snakemake(folder, "--dry-run", **environment)
    assert "voxmill_predict_tile" in said
    # The job's script finds the library too.
    snakemake(folder, "results/v/plan.json", **environment)
    assert json.loads((folder / "results/v/plan.json").read_text())["source"]["shape"] == [
        12,
        20,
        24,
    ]


def test_as_a_module_of_another_workflow(unfinished):
    run_module(outer(unfinished, f'"{ROOT}/Snakefile"'))


def test_a_module_with_a_prefix_is_refused(unfinished):
    folder = outer(unfinished, f'"{ROOT}/Snakefile"', 'prefix: "cells"')
    said = snakemake(folder, "--dry-run", ok=False)
    assert "module: expected neither prefix nor replace_prefix" in said


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_as_a_module_from_git(unfinished, tmp_path):
    """Git takes a repository here for that of the address; nothing is fetched from elsewhere."""
    repository = tmp_path / "repository"
    copied(repository)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(repository)]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"], ["tag", "v1"]):
        subprocess.run([*git, *command], check=True)
    folder = outer(unfinished, 'github("voxmill/voxmill", path="Snakefile", tag="v1")')
    content = json.loads((folder / "of_module.json").read_text())
    content["networks"]["identity"]["weights"] = "models/phantom.safetensors"
    content["volumes"]["v"]["model_voxel_size"] = "ignore"
    (folder / "of_module.json").write_text(json.dumps(content))
    run_module(
        folder,
        XDG_CACHE_HOME=str(tmp_path / "cache"),
        GIT_CONFIG_COUNT="1",
        GIT_CONFIG_KEY_0=f"url.{repository}.insteadOf",
        GIT_CONFIG_VALUE_0=ADDRESS,
    )


def copied(folder):
    """A copy of what the repository holds, for a test that commits or builds in it."""
    ignored = shutil.ignore_patterns(
        ".git", ".venv*", "__pycache__", ".snakemake", "results", "logs", ".*_cache", "*.so",
        "build", "*.egg-info", "site", ".hypothesis",
    )  # fmt: skip
    shutil.copytree(ROOT, folder, ignore=ignored, symlinks=True)


def test_pip_installs_the_library_with_what_it_compiles(tmp_path):
    copied(tmp_path / "source")
    target = tmp_path / "target"
    done = subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet",
            "--no-deps", "--target", target, tmp_path / "source",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "No matching distribution" in done.stderr:
        pytest.skip("pip cannot fetch setuptools here")
    assert done.returncode == 0, done.stderr
    written = {p.relative_to(ROOT) for p in (ROOT / "voxmill").rglob("*.[ch]pp")}
    written |= {p.relative_to(ROOT) for p in (ROOT / "voxmill").rglob("*.py")}
    assert len(written) > 100
    assert written == {p for p in written if (target / p).is_file()}
    # Digests follow the sources, those that are compiled too: the same ones, the same digest.
    # One without a script, which stays in the repository.
    module = "voxmill.prediction.predictor"
    code = f"from voxmill.runtime.digests import source_digest; print(source_digest({module!r}))"
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(target)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout.strip() == source_digest(module)


def test_a_project_runs_from_a_link_to_the_repository(unfinished, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(ROOT)
    assert "predict_tile" in Project(unfinished.folder, link).snakemake("--dry-run")
