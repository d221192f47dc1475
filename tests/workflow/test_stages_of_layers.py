"""`halo_vox: exact` in stages of layers, through whole runs of Snakemake."""

import dataclasses
import json
import os
import signal
import time

import numpy as np
import pytest
import tifffile
import torch
import yaml

from tests.workflow.conftest import make_project
from voxmill import models
from voxmill.engine.box import PredictionSettings, predict
from voxmill.networks import build
from voxmill.networks.settings import MSDNetSettings
from voxmill.statistics import normalise

NORMALISATION = {"low": 5.0, "high": 99.9, "clip": 10.0}
TILES = ["z0000_y0000_x0000", "z0000_y0000_x0012", "z0000_y0010_x0000", "z0000_y0010_x0012"]


def make_layered(folder):
    project = make_project(folder)
    settings = MSDNetSettings(depth=4, width=2, dilations=(1, 2))
    network = build("msdnet", settings, seed=5)
    with torch.no_grad():
        for bias in network.biases:
            bias.fill_(0.2)
    card = models.ModelCard(
        "deep", "msdnet", dataclasses.asdict(settings), normalisation=NORMALISATION
    )
    models.save(project.folder / "models" / "deep.safetensors", network, card)
    content = project.config | {"networks": {"deep": {"weights": "models/deep.safetensors"}}}
    (project.folder / "my.yaml").write_text(yaml.safe_dump(content))
    project.configure(tiles={"halo_vox": "exact", "exact": "layers"})
    return project


@pytest.fixture(scope="module")
def layered(tmp_path_factory):
    """A finished run in stages, whose maps were kept."""
    project = make_layered(tmp_path_factory.mktemp("layered") / "project")
    project.output = project.snakemake("--notemp", "stitch")
    return project


@pytest.fixture
def copy(layered, tmp_path):
    return layered.copy(tmp_path / "copy")


def whole(project):
    """The prediction of the volume at once."""
    card, network = models.load(project.folder / "models" / "deep.safetensors")
    statistics = json.loads(project.path("v/statistics.json").read_text())
    voxels = normalise(tifffile.imread(project.folder / "v.tif"), statistics, card.normalisation)
    return predict(network, voxels, PredictionSettings(device="cpu"), 1)[0]


def stitched(project):
    return tifffile.imread(project.path("v/deep/probability.ome.tif"))


def maps(project):
    return sorted(project.path("v/deep/maps").glob("*/*.maps"))


def test_the_stitched_volume_is_that_of_the_whole(layered):
    assert "evaluate_stage 4" in " ".join(layered.output.split())
    np.testing.assert_allclose(stitched(layered), whole(layered), atol=1e-5)
    assert [path.stem for path in maps(layered)] == TILES
    reason = json.loads(layered.path("v/plan.json").read_text())["exact"]["deep"]
    assert reason.startswith("stages of layers (2 stages: ")
    log = (layered.folder / "logs/v/plan_volume.log").read_text()
    assert f"deep: {reason}" in log
    assert layered.jobs("stitch") == {}


def test_lost_maps_are_made_again_where_a_prediction_needs_them(copy):
    before = stitched(copy)
    maps(copy)[1].unlink()
    # Nobody needs them while all predictions are there.
    assert copy.jobs("predict") == {}
    copy.path(f"v/deep/predictions/{TILES[0]}.tif").unlink()
    assert copy.jobs("predict")["evaluate_stage"] == 1
    copy.snakemake("predict", "stitch")
    np.testing.assert_array_equal(stitched(copy), before)
    # Unneeded maps are removed in the end, and then not missed.
    assert maps(copy) == []
    assert copy.jobs("predict", "stitch") == {}


def test_a_killed_run_goes_on_with_the_maps_that_are_there(tmp_path):
    project = make_layered(tmp_path / "killed")
    process = project.start("predict")
    while process.poll() is None and len(maps(project)) < 3:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert len(maps(project)) >= 3
    project.snakemake("--unlock")
    project.snakemake("--rerun-incomplete", "stitch")
    np.testing.assert_allclose(stitched(project), whole(project), atol=1e-5)
    assert maps(project) == []


def test_damaged_maps_are_named(copy):
    victim = maps(copy)[1]
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data)
    copy.path(f"v/deep/predictions/{TILES[1]}.tif").unlink()
    said = copy.snakemake("--notemp", "predict", ok=False)
    assert f"{victim.relative_to(copy.folder)}: damaged" in said
    victim.unlink()
    copy.snakemake("predict", "stitch")
    np.testing.assert_allclose(stitched(copy), whole(copy), atol=1e-5)


def test_several_tiles_in_a_job_read_the_same_maps(copy):
    before = stitched(copy)
    for path in copy.path("v/deep/predictions").iterdir():
        path.unlink()
    copy.configure(tiles={"per_job": 3})
    assert copy.jobs("predict")["predict_batch"] == 2
    copy.snakemake("predict", "stitch")
    np.testing.assert_array_equal(stitched(copy), before)


def test_what_can_not_be_done_in_stages_stops_before_any_job(tmp_path):
    project = make_layered(tmp_path / "new")
    project.configure(prediction={"flips": True})
    said = project.snakemake(ok=False)
    assert "volumes.v, network deep: tiles.exact: expected auto or halo, found layers" in said
    assert not project.path("").exists()
    project.configure(prediction={"flips": False}, tiles={"exact_memory_gb": 1e-5})
    assert "tiles.exact_memory_gb: one voxel" in project.snakemake(ok=False)
    project.configure(tiles={"exact_memory_gb": 32, "exact": "auto"})
    assert "evaluate_stage" not in project.jobs("predict")
