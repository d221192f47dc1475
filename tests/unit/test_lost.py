"""Tiles and predictions that were lost behind a manifest, by the listing of their folders."""

from dataclasses import replace

import pytest

from tests.unit.workflow_config import TILES, config, volume
from voxmill.workflow.lost import set_aside

BATCHES = (TILES[0], TILES[2])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """All tiles and predictions of jobs of two tiles each."""
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "results" / "v"
    lay(made / "tiles", [f"{tile}.tif" for tile in TILES])
    lay(made / "batches", [f"{tile}.json" for tile in BATCHES])
    for network in "ab":
        lay(made / network / "predictions", [f"{tile}.tif" for tile in TILES])
        lay(made / network / "batches", [f"{tile}.json" for tile in BATCHES])
    return made


def lay(folder, names):
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()


def left(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def in_pairs(**tiles):
    return config(tiles={"per_job": 2} | tiles)


def test_where_nothing_is_lost_all_stays(folder):
    assert set_aside(in_pairs()) == []
    assert left(folder / "batches") == [f"{tile}.json" for tile in BATCHES]


def test_nothing_is_lost_where_nothing_was_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert set_aside(in_pairs()) == []
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_of_a_lost_tile_is_set_aside(folder):
    (folder / "tiles" / f"{TILES[1]}.tif").unlink()
    (warning,) = set_aside(in_pairs())
    assert warning.startswith("results/v/tiles: 1 files of 1 jobs that were done are lost")
    assert left(folder / "batches") == [f"{TILES[2]}.json"]
    assert (folder / "batches" / f".{TILES[0]}.json.lost").exists()
    assert left(folder / "a" / "batches") == [f"{tile}.json" for tile in BATCHES]
    assert set_aside(in_pairs()) == []  # what was noticed is not told again


def test_tiles_that_are_not_kept_are_not_missed(folder):
    (folder / "tiles" / f"{TILES[1]}.tif").unlink()
    assert set_aside(in_pairs(keep="until-predicted")) == []
    assert set_aside(in_pairs(keep="none")) == []


def test_the_manifest_of_a_lost_prediction_is_set_aside(folder):
    for tile in TILES[2:]:
        (folder / "b" / "predictions" / f"{tile}.tif").unlink()
    (warning,) = set_aside(in_pairs())
    assert warning.startswith("results/v/b/predictions: 2 files of 1 jobs")
    assert left(folder / "b" / "batches") == [f"{TILES[0]}.json"]
    assert left(folder / "a" / "batches") == [f"{tile}.json" for tile in BATCHES]


def test_of_a_job_that_is_not_done_nothing_is_lost(folder):
    (folder / "a" / "batches" / f"{TILES[2]}.json").unlink()
    (folder / "a" / "predictions" / f"{TILES[3]}.tif").unlink()
    assert set_aside(in_pairs()) == []


def test_of_more_than_1000_jobs_the_manifest_of_the_slab_is_set_aside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    thin = config([volume(shape=(1100, 1, 2), networks=("a",))], tiles={"keep": "none"})
    thin = replace(thin, tile_shape_vox=(1, 1, 1))
    made = tmp_path / "results" / "v" / "a"
    lay(made / "predictions", [f"{tile}.tif" for tile in thin.tiles("v")])
    lay(made / "slabs", [f"{slab}.json" for slab in thin.grid("v").slabs])
    assert set_aside(thin) == []
    assert len(left(made / "slabs")) == 1100
    (made / "predictions" / "z0007_y0000_x0001.tif").unlink()
    set_aside(thin)
    assert (made / "slabs" / ".z0007.json.lost").exists()
    assert len(left(made / "slabs")) == 1099


def test_in_a_folder_of_somebody_else_nothing_is_changed(folder, monkeypatch):
    from pathlib import Path

    def refused(path, target):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "replace", refused)
    (folder / "tiles" / f"{TILES[1]}.tif").unlink()
    assert len(set_aside(in_pairs())) == 1
    assert left(folder / "batches") == [f"{tile}.json" for tile in BATCHES]
