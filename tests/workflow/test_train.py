"""Training by the workflow: a model that the same workflow then predicts with; a killed run."""

import os
import signal
import time

import numpy as np
import tifffile
import yaml

from tests.workflow.conftest import Project, read_probability
from voxmill.cells.outlines import outline_block
from voxmill.cells.seeds import Seeds
from voxmill.cells.table import PLACE, read_cells
from voxmill.config.objects import ObjectSettings
from voxmill.engine.backends import forward
from voxmill.geometry import Box
from voxmill.networks import models
from voxmill.networks.heads import cell_map
from voxmill.slurm import table
from voxmill.training.targets import centroid_target
from voxmill.volumes import LABEL_DTYPES, open_volume, read_header
from voxmill.volumes.probability import open_stored

SETTINGS = {
    "cell_diameter_um": 6.0,
    "network": {"depth": 3, "width": 2, "dilations": [1, 2]},
    "patch_vox": [12, 12, 12],
    "margin_vox": 1,
    "steps": 60,
    "validate_every": 30,
    "checkpoint_every": 5,
    "learning_rate": 0.02,
    "detector": {"min_distance_um": 2.5},
    "device": "cpu",
}


def make_project(folder, **settings):
    """A folder with a volume of blobs, their centroids, their masks, and a training of them."""
    folder.mkdir()
    shape = (24, 24, 40)
    rng = np.random.default_rng(0)
    points = rng.uniform(1, np.array(shape) - 2, (14, 3))
    blobs = centroid_target(points, (0, 0, 0), shape, (1, 1, 1), 1.5)
    tifffile.imwrite(folder / "m.tif", (blobs > 0.3).astype(np.uint8))
    volume = 100 + 900 * blobs
    tifffile.imwrite(folder / "v.tif", (volume + rng.normal(0, 20, shape)).astype(np.uint16))
    rows = "".join(f"{z},{y},{x}\n" for z, y, x in points)
    (folder / "t.csv").write_text("z_vox,y_vox,x_vox\n" + rows)
    blobs = {"path": "v.tif", "voxel_size_um": [1, 1, 1], "truth": {"path": "t.csv"}}
    blobs |= {"validation": "0:24, 0:24, 28:40", "mask": "m.tif"}
    training = {"volumes": {"blobs": blobs}}
    training["settings"] = SETTINGS | settings
    (folder / "my.yaml").write_text(yaml.safe_dump({"training": {"mine": training}}))
    return Project(folder)


def test_a_trained_network_predicts(tmp_path):
    outputs = ("centroid", "foreground", "distance")
    project = make_project(tmp_path / "project", foreground=True, touching="distance")
    project.snakemake("train")
    card = models.read_card(project.folder / "models" / "mine.safetensors")
    assert card.outputs == outputs
    assert card.metrics["validation"]["f1"] > 0.8
    assert (project.folder / "results/training/mine/curves.png").is_file()
    assert project.jobs("train") == {}
    record = project.folder / "logs/training/mine.jobs.jsonl"
    (row,) = table.read(project.folder)
    assert record.is_file() and (row.task, row.status) == ("models/mine.safetensors", "done")
    blobs = {"path": "v.tif", "voxel_size_um": [1, 1, 1], "truth": {"path": "t.csv"}}
    project.configure(
        volumes={"blobs": blobs},
        networks={"mine": {"weights": "models/mine.safetensors"}},
        tiles={"shape_vox": [24, 24, 20], "halo_vox": "exact"},
        cells={"min_distance_um": 2.5, "smoothing_um": 0},
        evaluation={"max_distance_um": 3, "bootstrap_samples": 20},
        prediction={"device": "cpu"},
    )
    project.snakemake("evaluate")
    text = project.path("blobs/mine/evaluation.json").read_text()
    assert yaml.safe_load(text)["f1"] > 0.8
    # The workflow predicts one map, the same with and without tiles.
    found = read_probability(project.path("blobs/mine"))
    _, network = models.load(project.folder / "models" / "mine.safetensors")
    volume = tifffile.imread(project.folder / "v.tif")
    low, high = (np.percentile(volume, card.normalisation[key]) for key in ("low", "high"))
    clip = card.normalisation["clip"]
    grey = np.clip((volume - low) / (high - low), -clip, clip).astype(np.float32)
    expected = forward(network, grey[None], "torch", "cpu", "float32", 1)
    assert len(expected) == len(outputs)
    expected = cell_map(card.outputs, expected)
    near = np.abs(expected - 0.5) > 1e-3  # where the mask ends, rounding decides
    np.testing.assert_allclose(found[near], expected[near], atol=0.5 / 255 + 1e-4)
    project.snakemake("segment")
    with open_stored(project.path("blobs/mine/probability.ome.zarr/zarr.json")) as opened:
        stored = opened.read_window((0, 0, 0), volume.shape)
    header = read_header(project.path("blobs/mine/labels.ome.zarr"), dtypes=LABEL_DTYPES)
    with open_volume(header) as opened:
        labels = opened.read_window((0, 0, 0), volume.shape)
    cells = read_cells(project.path("blobs/mine/cells.csv"))
    # Seeds are the summits, the foreground is the mask from one half on; no tile shows.
    chosen = ObjectSettings(largest_radius_um=SETTINGS["cell_diameter_um"])
    whole, seeds = Box.from_shape(volume.shape), Seeds(cells[PLACE].to_numpy(), cells["id"])
    again = outline_block(stored, (0, 0, 0), whole, whole, seeds, (1, 1, 1), chosen)
    np.testing.assert_array_equal(labels, again)


def test_a_killed_training_goes_on(tmp_path):
    project = make_project(tmp_path / "project", steps=400, validate_every=400)
    checkpoint = project.path("training/mine/checkpoint.safetensors")
    process = project.start("train")
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert checkpoint.exists()
    # As a cluster does at a time limit: the scheduler and its job die on the spot.
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert not (project.folder / "models/mine.safetensors").exists()
    assert checkpoint.exists()
    project.snakemake("train", "--unlock")
    project.snakemake("train", "--rerun-incomplete")
    log = (project.folder / "logs/training/mine.log").read_text()
    assert "resumed at step" in log
    card = models.read_card(project.folder / "models/mine.safetensors")
    assert (card.training["steps"], card.outputs) == (400, ("centroid",))
    assert not checkpoint.exists()


def test_settings_that_the_volume_does_not_allow_are_named(tmp_path):
    project = make_project(tmp_path / "project", patch_vox=[48, 48, 48])
    output = project.snakemake("train", ok=False)
    log = (project.folder / "logs/training/mine.log").read_text()
    message = "Make training.patch_vox smaller"
    assert message in log and message in output
    assert "Traceback" not in log


def test_an_unknown_setting_stops_before_any_job(tmp_path):
    project = make_project(tmp_path / "project", learning_speed=1)
    output = project.snakemake("train", ok=False)
    assert "training.mine.settings: unknown key 'learning_speed'; did you mean" in output
    assert not (project.folder / "logs/training/mine.log").exists()
