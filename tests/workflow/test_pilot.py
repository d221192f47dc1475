"""A pilot on a box of a volume, and the whole run after it."""

import json

import pandas as pd

from tests.workflow.conftest import make_project

TILE = "z0000_y0000_x0012"
OTHERS = ["z0000_y0000_x0000", "z0000_y0010_x0000", "z0000_y0010_x0012"]
WHOLE = (
    "v/plan.json", "v/statistics.json", "v/identity/cells.csv", "v/identity/evaluation.json",
    "v/identity/evaluation.csv", "v/identity/matches.csv", "v/baseline/cells.csv",
    "v/identity/probability.ome.zarr/zarr.json",
    *(f"v/identity/probability.ome.zarr/0/c/0/{y}/{x}" for y in (0, 1) for x in (0, 1)),
    *(f"v/tiles/{name}.tif" for name in (TILE, *OTHERS)),
)  # fmt: skip


def choose(project, **keys):
    project.configure(volumes={"v": project.config["volumes"]["v"] | keys})


def names(project, folder):
    return sorted(path.stem for path in project.path(folder).glob("z*"))


def test_a_pilot_makes_its_tiles_and_the_whole_run_the_others(tmp_path, finished):
    project = make_project(tmp_path / "pilot")
    # Meets one tile, y 0 to 10 and x 12 to 24, in which lies the cell (4, 4, 18).
    choose(project, box="0:8, 1:9, 14:22")
    project.snakemake()
    assert names(project, "v/tiles") == names(project, "v/identity/predictions") == [TILE]
    cells = pd.read_csv(project.path("v/identity/cells.csv"))
    whole = pd.read_csv(finished.path("v/identity/cells.csv"))
    inside = whole[(whole.y_vox < 9) & (whole.x_vox > 14)]
    assert cells[["z_vox", "y_vox", "x_vox", "score"]].round(3).to_numpy().tolist() == (
        inside[["z_vox", "y_vox", "x_vox", "score"]].round(3).to_numpy().tolist()
    )
    evaluation = json.loads(project.path("v/identity/evaluation.json").read_text())
    assert evaluation["region"] == [[0, 1, 14], [8, 9, 22]]
    assert (evaluation["n_truth"], evaluation["f1"]) == (1, 1.0)
    baseline = pd.read_csv(project.path("v/baseline/cells.csv"))
    assert len(baseline) == 1
    assert baseline[["z_vox", "y_vox", "x_vox"]].round().to_numpy().tolist() == [[4, 4, 18]]
    assert json.loads(project.path("v/identity/seams.json").read_text())["windows"] == []
    assert project.path("v/identity/overview.png").stat().st_size > 10_000
    assert project.jobs() == {}

    image = "v/identity/probability.ome.zarr"
    metadata = json.loads(project.path(f"{image}/zarr.json").read_text())
    assert len(metadata["attributes"]["ome"]["multiscales"][0]["datasets"]) == 1
    assert sorted(project.path(image).glob("0/c/*/*/*")) == [project.path(f"{image}/0/c/0/0/1")]
    names_kept = (
        f"v/tiles/{TILE}.tif",
        f"v/identity/predictions/{TILE}.json",
        f"{image}/0/c/0/0/1",
    )
    kept = [project.path(name) for name in names_kept]
    before = [path.stat().st_mtime_ns for path in kept]
    content = project.config["volumes"]["v"]
    del content["box"]
    project.configure(volumes={"v": content})
    jobs = project.jobs()
    assert (jobs["cut_tiles"], jobs["predict_tile"]) == (3, 3)
    assert not {"measure_volume", "plan_volume", "measure_halo"} & set(jobs)
    project.snakemake()
    assert [path.stat().st_mtime_ns for path in kept] == before
    for name in WHOLE:
        assert project.path(name).read_bytes() == finished.path(name).read_bytes(), name


def test_a_pilot_after_the_whole_run_takes_its_tiles(project):
    choose(project, box="0:12, 5:15, 0:10")
    jobs = project.jobs()
    assert not {"cut_tiles", "predict_tile", "measure_volume", "plan_volume"} & set(jobs)
    shards = sorted(project.path("v/identity/probability.ome.zarr").glob("0/c/*/*/*"))
    project.snakemake()
    # Those outside of the box are left for the next whole run.
    assert sorted(project.path("v/identity/probability.ome.zarr").glob("0/c/*/*/*")) == shards
    assert len(shards) == 4
    cells = pd.read_csv(project.path("v/identity/cells.csv"))
    assert cells["x_vox"].max() < 12
    # Both tiles at x 0: their seam is looked at.
    windows = json.loads(project.path("v/identity/seams.json").read_text())["windows"]
    assert windows
    assert all(window["stop"][2] <= 12 for window in windows)


def test_a_box_outside_of_the_volume_stops_before_any_job(tmp_path):
    project = make_project(tmp_path / "new")
    choose(project, box="0:12, 0:20, 20:30")
    output = project.snakemake("--dry-run", ok=False)
    assert "volumes.v.box: box: expected a part of the volume of shape (12, 20, 24)" in output
    assert "Traceback" not in output
