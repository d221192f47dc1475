"""Bad input: one clear error, before any job starts wherever the header tells it."""

import numpy as np
import pytest
import tifffile

from tests.workflow.conftest import flip_a_bit, make_project, make_volume, shard_of


def run_fails(project, *arguments):
    output = project.snakemake(*arguments, ok=False)
    # Snakemake's own frames of the Snakefile are its way to name a rule; ours is no traceback.
    assert "Traceback (most recent call last)" not in output, output
    return output


@pytest.fixture
def new(tmp_path):
    return make_project(tmp_path / "new")


def test_a_missing_volume_stops_before_any_job(new):
    (new.folder / "v.tif").unlink()
    output = run_fails(new)
    assert "volumes.v.path: v.tif: this volume does not exist" in output
    assert not new.path("").exists()


def test_an_unknown_key_stops_before_any_job(new):
    new.configure(tiles={"shape": [1, 2, 3]})
    assert "tiles: unknown key 'shape'" in run_fails(new)
    assert not new.path("").exists()


def test_weights_of_another_network_stop_before_any_job(new):
    card = new.folder / "models" / "identity.json"
    card.write_text(card.read_text().replace('"depth": 1', '"depth": 2'))
    assert "weights of another network" in run_fails(new)
    assert not new.path("").exists()


def test_a_truth_in_another_frame_stops_before_any_tile_is_predicted(new):
    (new.folder / "truth.csv").write_text("z_vox,y_vox,x_vox\n5,9,5\n24,3,3\n")
    output = run_fails(new)
    assert "truth.csv" in output
    assert "1 of 2" in output or "outside" in output
    assert not new.path("v/identity/predictions").exists()


def test_a_table_that_leaves_its_unit_open_is_read_as_the_configuration_says(new):
    (new.folder / "Results.csv").write_text(" ,Area,X,Y,Slice\n1,0,5,9,7\n2,0,12,10,7\n")
    volume = new.config["volumes"]["v"]
    new.configure(volumes={"v": volume | {"truth": {"path": "Results.csv"}}})
    assert "`units: vox` or `units: um`" in run_fails(new, "results/v/truth.csv")
    new.configure(volumes={"v": volume | {"truth": {"path": "Results.csv", "units": "vox"}}})
    new.snakemake("results/v/truth.csv")
    assert new.path("v/truth.csv").read_text().splitlines()[1:] == [
        "6.0000,9.0000,5.0000",
        "6.0000,10.0000,12.0000",
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_no_numbers_are_placed(new, value):
    volume = make_volume().astype(np.float32)
    volume[3, 4, 5] = value
    tifffile.imwrite(new.folder / "v.tif", volume)
    output = run_fails(new)
    assert "v.tif" in output
    assert "3, 4, 5" in output
    assert not new.path("v/identity/predictions").exists()


def test_a_broken_prediction_is_named_and_mended_by_deleting_it(project):
    victim = shard_of(project.path("v/identity"), "z0000_y0000_x0012")
    flip_a_bit(victim)
    output = run_fails(project, "--forcerun", "check_slab")
    assert f"{victim.relative_to(project.folder)}: damaged" in output
    assert "Delete results/v/identity/predictions/z0000_y0000_x0012.json and run again" in output
    project.path("v/identity/predictions/z0000_y0000_x0012.json").unlink()
    project.snakemake("stitch")
