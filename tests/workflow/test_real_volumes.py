"""The whole workflow on real light-sheet volumes: coordinates, seams and files are right."""

import json

import numpy as np
import pandas as pd
import pytest
import tifffile

from tests.workflow.conftest import make_project, read_probability
from voxmill.evaluation.matching import match_points
from voxmill.runtime.files import read_json


@pytest.fixture(scope="module")
def run(lightsheet, tmp_path_factory):
    """A microglia volume with its mask as truth, and c-Fos with its points."""
    project = make_project(tmp_path_factory.mktemp("real") / "project")
    microglia = {
        "path": str(lightsheet / "microglia_1874.tif"),
        "voxel_size_um": [1, 1, 1],
        "truth": {"path": str(lightsheet / "microglia_1874_mask.tif"), "kind": "mask"},
    }
    cfos = {
        "path": str(lightsheet / "cfos_1147.tif"),
        "voxel_size_um": [6, 1.62, 1.62],
        "truth": {"path": str(lightsheet / "cfos_1147_centroids.csv"), "kind": "points"},
        "region": "0:100, 0:200, 50:150",
    }
    content = project.config
    # Percentiles of all voxels, which are what the test takes too.
    content["volumes"] = {
        name: volume | {"tissue": "none"}
        for name, volume in (("microglia", microglia), ("cfos", cfos))
    }
    content["tiles"] = {"shape_vox": [100, 200, 110], "halo_vox": "exact"}
    content["cells"] = {"min_distance_um": 6, "smoothing_um": 2, "threshold": 0.3}
    content["evaluation"] = {"max_distance_um": 6, "bootstrap_samples": 20, "baseline": False}
    (project.folder / "my.yaml").write_text(json.dumps(content))
    project.snakemake("evaluate")
    return project


def test_the_truth_of_a_mask_is_its_centroids(run, lightsheet):
    found = pd.read_csv(run.path("microglia/truth.csv")).to_numpy()
    expected = pd.read_csv(lightsheet / "microglia_1874_centroids.csv").to_numpy()
    pairs = match_points(expected, found, 0.05, (1, 1, 1))
    assert len(pairs) == len(expected) == len(found)


@pytest.mark.parametrize(
    ("name", "source"), [("microglia", "microglia_1874"), ("cfos", "cfos_1147")]
)
def test_stitched_seams_are_those_of_the_whole_volume(run, lightsheet, name, source):
    volume = tifffile.imread(lightsheet / f"{source}.tif").astype(np.float64)
    low, high = np.percentile(volume, (5, 99.9))
    expected = 1 / (1 + np.exp(4 - 8 * np.clip((volume - low) / (high - low), -10, 10)))
    found = read_probability(run.path(f"{name}/identity"))
    np.testing.assert_allclose(found, expected, atol=0.5 / 255 + 2e-6)


def test_cells_lie_on_bright_voxels_of_the_volume(run, lightsheet):
    volume = tifffile.imread(lightsheet / "microglia_1874.tif")
    cells = pd.read_csv(run.path("microglia/identity/cells.csv"))
    assert len(cells) > 50
    voxels = np.rint(cells[["z_vox", "y_vox", "x_vox"]].to_numpy()).astype(int)
    assert np.median(volume[tuple(voxels.T)]) > np.percentile(volume, 95)


def test_a_region_limits_the_evaluation_in_absolute_coordinates(run, lightsheet):
    evaluation = read_json(run.path("cfos/identity/evaluation.json"))
    truth = pd.read_csv(lightsheet / "cfos_1147_centroids.csv").to_numpy()
    inside = (np.rint(truth) >= [0, 0, 50]).all(axis=1) & (np.rint(truth) < [100, 200, 150]).all(
        axis=1
    )
    assert evaluation["n_truth"] == inside.sum()
