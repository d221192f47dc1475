"""Runs on an OME-Zarr volume: a dry run, a whole run, and what is noticed before a tile is cut."""

import os
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import tifffile

from tests.workflow.conftest import CELLS, SHAPE, SIZE_UM, make_project, make_volume

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from zarr_files import edit, image, multiscale


def as_zarr(folder):
    """Two channels and two levels; the volume is channel 1 of level 0."""
    voxels = np.stack([np.zeros_like(make_volume()), make_volume()])
    scales = [(1.0, *SIZE_UM), (1.0, *(2 * edge for edge in SIZE_UM))]
    return image(
        folder / "v.ome.zarr", [voxels, voxels[:, ::2, ::2, ::2]],
        multiscale("czyx", scales=scales), chunks=(1, 4, 8, 8),
    )  # fmt: skip


def test_whole_run_on_ome_zarr(tmp_path):
    """The same cells as from a TIFF; nothing to do after; a changed chunk runs the volume again."""
    project = make_project(tmp_path / "project")
    path = as_zarr(project.folder)
    # Without a voxel size: the metadata say it.
    volume = {"path": path.name, "channel": 1, "truth": project.config["volumes"]["v"]["truth"]}
    project.configure(volumes={"v": volume})
    assert project.jobs()["cut_tiles"] == 4
    project.snakemake()
    cells = pd.read_csv(project.path("v/identity/cells.csv"))
    found = sorted(map(tuple, cells[["z_vox", "y_vox", "x_vox"]].round().astype(int).to_numpy()))
    assert found == sorted(CELLS)
    assert project.jobs() == {}
    chunk = path / "0/c/1/0/0/0"
    os.utime(chunk)
    # Its content decides, not its date.
    assert project.jobs() == {}
    chunk.unlink()  # a missing chunk is the fill value: other voxels
    assert project.jobs()["cut_tiles"] == 4
    edit(
        path / "zarr.json",
        lambda c: c["attributes"]["ome"]["multiscales"][0]["axes"][1].update(unit="pixel"),
    )
    output = project.snakemake("--dry-run", ok=False)
    assert "volumes.v.voxel_size_um: " in output and "axis z has the unit 'pixel'" in output
    project.configure(volumes={"v": volume | {"level": 2}})
    output = project.snakemake("--dry-run", ok=False)
    assert "volumes.v.path: v.ome.zarr: level: 2 doesn't exist: expected 0 to 1" in output
    project.configure(volumes={"v": volume | {"path": "s3://bucket/v.zarr"}})
    output = project.snakemake("--dry-run", ok=False)
    assert "s3://bucket/v.zarr: expected a path on a disk of this machine" in output


def test_tiles_of_hdf5(tmp_path):
    project = make_project(tmp_path / "project")
    with h5py.File(project.folder / "v.h5", "w") as file:
        file["a/b"] = make_volume()
        file["c"] = np.zeros(SHAPE, "uint16")
    volume = {"path": "v.h5", "dataset": "a/b"}
    project.configure(volumes={"v": project.config["volumes"]["v"] | volume})
    project.configure(tiles={"halo_vox": 0})
    project.snakemake("tiles")
    for path in project.path("v/tiles").glob("*.tif"):
        start = [int(part[1:]) for part in path.stem.split("_")]
        tile = tifffile.imread(path)
        inside = tuple(slice(a, a + n) for a, n in zip(start, tile.shape, strict=True))
        np.testing.assert_array_equal(tile, make_volume()[inside])
