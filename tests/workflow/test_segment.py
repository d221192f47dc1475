"""`snakemake segment export`: labels with their pyramid, and all that is made of them."""

import json

import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr

from tests.workflow.conftest import CELLS, SHAPE, flip_a_bit, make_project, make_volume
from voxmill.__main__ import main
from voxmill.engine.build import compiler
from voxmill.volumes.pyramid import reduce_mode

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")

COPIES = 13  # one beside the other: wide enough for a second level
FOLDER = "v/identity"


@pytest.fixture(scope="module")
def segmented(tmp_path_factory):
    project = make_project(tmp_path_factory.mktemp("segmented") / "project")
    tifffile.imwrite(project.folder / "v.tif", np.tile(make_volume(), (1, 1, COPIES)))
    content = project.config
    del content["volumes"]["v"]["truth"]
    project.configure(
        volumes=content["volumes"],
        tiles={"shape_vox": [12, 20, 128]},
        segment={"formats": ["ome-zarr", "ome-tiff"], "tables": ["csv", "parquet"],
                 "foreground": "image", "largest_radius_um": 4},
        export={"formats": ["neuroglancer", "rois", "meshes"], "image": "copy",
                "box": "0:12, 0:20, 0:46"},
    )  # fmt: skip
    project.output = project.snakemake("segment", "export")
    return project


def test_labels_of_all_cells_with_a_level_more(segmented):
    group = zarr.open_group(segmented.path(f"{FOLDER}/probability.ome.zarr/labels/cells"), mode="r")
    labels = group["0"][:]
    assert labels.shape == (*SHAPE[:2], COPIES * SHAPE[2])
    cells = pd.read_csv(segmented.path(f"{FOLDER}/cells.csv"))
    assert len(cells) == COPIES * len(CELLS)
    assert set(np.unique(labels)) == {0, *cells["id"]}
    at = np.rint(cells[["z_vox", "y_vox", "x_vox"]].to_numpy()).astype(int)
    np.testing.assert_array_equal(labels[tuple(at.T)], cells["id"])
    np.testing.assert_array_equal(group["1"][:], reduce_mode(labels, (1, 2, 2)))
    np.testing.assert_array_equal(
        tifffile.imread(segmented.path(f"{FOLDER}/labels.ome.tif")), labels
    )


def test_the_certificate_and_the_measures(segmented):
    seams = json.loads(segmented.path(f"{FOLDER}/label_seams.json").read_text())
    assert seams["labels"] > 0
    assert (seams["labels_differ"], seams["labels_split"], seams["labels_merged"]) == (0, 0, 0)
    measured = pd.read_csv(segmented.path(f"{FOLDER}/cells_measured.csv"))
    again = pd.read_parquet(segmented.path(f"{FOLDER}/cells_measured.parquet"))
    pd.testing.assert_frame_equal(measured, again)
    assert (measured["volume_um3"] > 0).all()


def test_what_is_exported_and_nothing_more_to_do(segmented):
    folder = segmented.path(f"{FOLDER}/export")
    state = json.loads((folder / "neuroglancer/state.json").read_text())
    names = ["image", "probability", "labels", "cells"]
    assert [layer["name"] for layer in state["layers"]] == names
    assert (folder / "neuroglancer/labels/zarr.json").is_file()
    labels = zarr.open_group(folder.parent / "labels.ome.zarr", mode="r")["0"][:, :, :46]
    assert {int(path.stem) for path in (folder / "meshes").glob("*.ply")} == set(labels.flat) - {0}
    assert (folder / "rois/cells.zip").stat().st_size > 1000
    assert segmented.jobs("segment", "export") == {}


def test_a_damaged_shard_of_a_level_is_found_and_made_again(segmented, tmp_path, monkeypatch):
    project = segmented.copy(tmp_path / "project")
    shard = project.path(f"{FOLDER}/labels.ome.zarr/1/c/0/0/0")
    content = shard.read_bytes()
    flip_a_bit(shard, len(content) // 2)
    monkeypatch.chdir(project.folder)
    assert main(["repair", "my.yaml"]) == 0
    jobs = project.jobs("segment")
    assert jobs["build_level"] == 1
    assert "label_slab" not in jobs
    project.snakemake("segment")
    assert shard.read_bytes() == content
