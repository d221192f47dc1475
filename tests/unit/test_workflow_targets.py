"""What the rules without output ask for, without Snakemake."""

import pytest

from tests.unit.workflow_config import TILES, ancient, config, volume
from voxmill.denoising.scans import Denoising, Scan
from voxmill.workflow.scans import Scans
from voxmill.workflow.targets import Targets


def targets(volumes=None, denoising=None, **sections):
    denoising = denoising or Denoising({}, {}, {}, ("cpu",))
    return Targets(config(volumes, **sections), Scans(denoising, ancient))


def lay(folder, names):
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()


def test_tiles_of_all_volumes():
    asked = targets([volume("v"), volume("w", shape=(10, 10, 10))]).tiles()
    expected = [f"results/v/tiles/{tile}.tif" for tile in TILES]
    assert asked == [*expected, "results/w/tiles/z0000_y0000_x0000.tif"]


def test_predictions_of_all_networks():
    asked = targets().predictions()
    assert asked == [f"results/v/{n}/predictions/{tile}.json" for n in "ab" for tile in TILES]


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results" / "v" / "a"


def test_tiles_that_share_jobs_are_asked_for_by_the_jobs_manifests(in_folder):
    asked = targets([volume(networks=("a",))], tiles={"per_job": 3}).predictions()
    assert asked == [f"results/v/a/batches/{tile}.json" for tile in (TILES[0], TILES[3])]


def test_a_lost_prediction_is_named_where_its_job_has_ended(in_folder):
    one = [volume(networks=("a",))]
    lay(in_folder / "predictions", [f"{TILES[0]}.json"])
    lay(in_folder / "batches", [f"{TILES[0]}.json"])
    asked = targets(one, tiles={"per_job": 2}).predictions()
    manifests = [f"results/v/a/batches/{tile}.json" for tile in (TILES[0], TILES[2])]
    # Those of the second job are made by that job, which has not ended.
    assert asked == [*manifests, f"results/v/a/predictions/{TILES[1]}.json"]


def test_whole_batches_have_lost_nothing(in_folder):
    lay(in_folder / "predictions", [f"{tile}.json" for tile in TILES])
    lay(in_folder / "batches", [f"{TILES[0]}.json", f"{TILES[2]}.json"])
    asked = targets([volume(networks=("a",))], tiles={"per_job": 2}).predictions()
    assert not any("predictions" in path for path in asked)


def test_evaluations_are_of_volumes_with_a_ground_truth():
    plain = volume("w", settings={"path": "w.tif"})
    asked = targets([volume("v"), plain])
    assert asked.per_method("evaluation.json") == [
        f"results/v/{method}/evaluation.json" for method in ("a", "b", "baseline")
    ]
    assert asked.per_network("cells.csv") == [
        f"results/{v}/{n}/cells.csv" for v in "vw" for n in "ab"
    ]
    durable = asked.durable()
    assert "results/v/comparison.html" in durable
    assert "results/w/comparison.html" not in durable


def test_a_run_keeps_every_product_once():
    scan = Scan("s", "s.nii.gz", dataset="study")
    asked = targets(denoising=Denoising({"s": scan}, {"study": "raw"}, {}, ("cpu",)))
    durable = asked.durable()
    assert len(set(durable)) == len(durable)
    products = {path.rpartition("/")[2] for path in durable if path.startswith("results/v/a/")}
    assert products == {
        *(f"{tile}.json" for tile in TILES), "zarr.json", "seams.json", "cells.csv",
        "overview.png", "mistakes.png", "evaluation.json", "evaluation.csv", "matches.csv",
    }  # fmt: skip
    of_volume = {path for path in durable if path.count("/") == 2}
    assert {
        f"results/v/{name}" for name in ("plan.json", "grey_blocks.npz", "truth.csv")
    } < of_volume
    assert "results/v/baseline/cells.csv" in durable
    assert "results/v/a/halo.json" not in durable
    assert "results/v/a/halo.json" in targets(tiles={"halo_vox": "auto"}).durable()
    assert set(asked.denoised()) <= set(durable)
    assert "results/s/denoised.nii.gz" in asked.denoised()
    assert "results/study/derivatives/voxmill/dataset_description.json" in asked.denoised()


def test_an_ome_tiff_is_kept_where_it_is_asked_for():
    formats = {"formats": ("ome-zarr", "ome-tiff")}
    assert targets(stitching=formats).stitched() == [
        f"results/v/{network}/{name}"
        for name in ("probability.ome.zarr/zarr.json", "probability.ome.tif")
        for network in "ab"
    ]


def test_models_that_are_trained():
    models = targets(training={"n": {}, "m": {}}).models()
    assert [path for path in models if path.startswith("models/")] == [
        "models/n.safetensors", "models/n.json", "models/m.safetensors", "models/m.json"
    ]  # fmt: skip
    assert "results/training/m/curves.csv" in models
    assert targets().models() == []
