"""Two things changed at once: one run gives what a run from scratch gives."""

import itertools
import json
import os
import shutil

import numpy as np
import pytest
import tifffile

from tests.workflow.conftest import CELLS, make_volume, save_identity

# Cells of another volume: the first one moved.
OTHER = [(5, 8, 7), *CELLS[1:]]


def change_truth(project):
    rows = "".join(f"{z},{y},{x}\n" for z, y, x in OTHER)
    path = project.folder / "truth.csv"
    path.write_text("z_vox,y_vox,x_vox\n" + rows)
    # Older than all results, as a file that was unpacked or copied with its date.
    os.utime(path, (1_000_000_000, 1_000_000_000))


def change_volume(project):
    volume = np.roll(make_volume(), 2, axis=2)
    tifffile.imwrite(project.folder / "v.tif", volume)


def change_model(project):
    save_identity(project.folder / "models" / "identity.safetensors")
    card = project.folder / "models" / "identity.json"
    content = json.loads(card.read_text())
    content["normalisation"]["high"] = 99.0
    card.write_text(json.dumps(content))


EDITS = {
    "truth": change_truth,
    "volume": change_volume,
    "tiles": lambda project: project.configure(tiles={"shape_vox": [12, 20, 12]}),
    "halo": lambda project: project.configure(tiles={"halo_vox": 3}),
    "cells": lambda project: project.configure(cells={"threshold": 0.8}),
    "voxel size": lambda project: project.configure(
        volumes={"v": project.config["volumes"]["v"] | {"voxel_size_um": [1.5, 1.0, 1.0]}}
    ),
    "model": change_model,
}
QUICK = [("tiles", "truth"), ("truth", "volume")]
KEPT = (
    "plan.json", "truth.csv", "identity/cells.csv", "identity/evaluation.json",
    "identity/matches.csv", "identity/probability.ome.zarr/zarr.json",
)  # fmt: skip


def pairs():
    for pair in itertools.combinations(sorted(EDITS), 2):
        yield pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.slow)


@pytest.mark.parametrize(("first", "second"), list(pairs()))
def test_one_run_after_two_edits_is_a_run_from_scratch(project, first, second):
    before = project.path("v/identity/evaluation.json").read_bytes()
    for name in (first, second):
        EDITS[name](project)
    project.snakemake()
    found = {name: project.path(f"v/{name}").read_bytes() for name in KEPT}
    assert project.jobs() == {}
    for folder in ("results", ".snakemake", "logs"):
        shutil.rmtree(project.folder / folder)
    project.snakemake()
    for name in KEPT:
        assert found[name] == project.path(f"v/{name}").read_bytes(), name
    if {first, second} & {"truth", "volume", "voxel size"}:
        assert found["identity/evaluation.json"] != before
