"""The configurations in docs/examples, with the practice stack of the tutorial."""

import json
import runpy
import shutil

import pytest

from tests.workflow.conftest import ROOT, Project

EXAMPLES = ROOT / "docs" / "examples"


def make_practice(folder, example):
    """A folder with the practice stack, the models, and an example as its configuration."""
    script = runpy.run_path(str(EXAMPLES / "make_practice_stack.py"))
    script["write_practice_stack"](folder / "practice")
    (folder / "models").mkdir()
    for suffix in (".safetensors", ".json"):
        phantom = (ROOT / "models" / "phantom").with_suffix(suffix)
        for name in ("phantom", "mine"):
            shutil.copy(phantom, (folder / "models" / name).with_suffix(suffix))
    shutil.copy(example, folder / "my.yaml")
    return Project(folder)


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_an_example_can_be_planned(tmp_path, example):
    project = make_practice(tmp_path, example)
    if "training" in project.config:
        (tmp_path / "models" / "mine.safetensors").unlink()
        assert project.jobs("train") == {"train_network": 1, "train": 1}
    else:
        assert project.jobs()["predict_tile"] == 4


@pytest.mark.slow
def test_the_tutorial_from_clicks_to_cells(tmp_path):
    project = make_practice(tmp_path, EXAMPLES / "tutorial_train.yaml")
    for path in (tmp_path / "models").glob("mine.*"):
        path.unlink()
    training = project.config["training"]["mine"]
    training["settings"] |= {"steps": 40, "validate_every": 20}
    project.configure(training={"mine": training})
    project.snakemake("train")
    shutil.copy(EXAMPLES / "tutorial_run.yaml", tmp_path / "my.yaml")
    project.snakemake()
    evaluation = json.loads(project.path("brain1/mine/evaluation.json").read_text())
    assert evaluation["n_truth"] == 194
    assert evaluation["f1"] > 0.95
