"""Tiles and predictions that were lost behind a manifest, by the listing of their folders."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.unit.workflow_config import SHAPE, TILE, TILES, config, volume
from voxmill.runtime.checked import write_checked_json
from voxmill.tiles.predicted import PredictedTile
from voxmill.volumes.sharded import ShardedArray
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
        lay(made / network / "predictions", [f"{tile}.json" for tile in TILES])
        for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
            lay(made / network / f"probability.ome.zarr/0/c/0/{row}", [f"{column}"])
        lay(made / network / "batches", [f"{tile}.json" for tile in BATCHES])
    return made


def lay(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if folder.name == "batches":
            write_checked_json(folder / name, {"tiles": []})
        else:
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
        (folder / "b" / "predictions" / f"{tile}.json").unlink()
    (warning,) = set_aside(in_pairs())
    assert warning.startswith("results/v/b/predictions: 2 files of 1 jobs")
    assert left(folder / "b" / "batches") == [f"{TILES[0]}.json"]
    assert left(folder / "a" / "batches") == [f"{tile}.json" for tile in BATCHES]


def test_of_a_job_that_is_not_done_nothing_is_lost(folder):
    (folder / "a" / "batches" / f"{TILES[2]}.json").unlink()
    (folder / "a" / "predictions" / f"{TILES[3]}.json").unlink()
    assert set_aside(in_pairs()) == []


def test_of_more_than_1000_jobs_the_manifest_of_the_slab_is_set_aside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    thin = config([volume(shape=(1100, 1, 2), networks=("a",))], tiles={"keep": "none"})
    thin = replace(thin, tile_shape_vox=(1, 1, 1))
    made = tmp_path / "results" / "v" / "a"
    lay(made / "predictions", [f"{tile}.json" for tile in thin.tiles("v")])
    for z in range(1100):
        lay(made / f"probability.ome.zarr/0/c/{z}/0", ["0", "1"])
    lay(made / "slabs", [f"{slab}.json" for slab in thin.grid("v").slabs])
    assert set_aside(thin) == []
    assert len(left(made / "slabs")) == 1100
    (made / "predictions" / "z0007_y0000_x0001.json").unlink()
    set_aside(thin)
    assert (made / "slabs" / ".z0007.json.lost").exists()
    assert len(left(made / "slabs")) == 1099


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_where_nothing_can_be_written_nothing_is_changed(folder, monkeypatch, number):
    """Results of somebody else, or on a disk that is read-only."""

    def refused(path, target):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "replace", refused)
    (folder / "tiles" / f"{TILES[1]}.tif").unlink()
    assert len(set_aside(in_pairs())) == 1
    assert left(folder / "batches") == [f"{tile}.json" for tile in BATCHES]


def test_lost_shards_have_what_vouches_for_them_removed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("results/v/a")
    array = ShardedArray.of_cores(folder / "probability.ome.zarr/0", SHAPE, "uint8", TILE, "zstd")
    for tile, index in zip(TILES, array.indices(0), strict=True):
        stored = array.write_shard(index, np.full(array.box(index).shape, 3, np.uint8))
        PredictedTile(tile, {}, stored).write(folder / "predictions" / f"{tile}.json")
    vouching = ["batches/z0000_y0000_x0000.json", "slabs/z0000.json"]
    for path in (*vouching, "batches/z0000_y0100_x0000.json", "probability.ome.zarr/zarr.json"):
        write_checked_json(folder / path, {})
    checked = config([volume(networks=("a",))], tiles={"per_job": 2})
    assert set_aside(checked) == []
    assert (folder / "probability.ome.zarr/zarr.json").exists()
    (folder / "probability.ome.zarr/0/c/0/0/1").unlink()
    (said,) = set_aside(checked)
    assert f"1 shards are gone, of tile {TILES[1]} first" in said
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*.json")}
    assert left == {
        *(f"predictions/{tile}.json" for tile in TILES if tile != TILES[1]),
        "batches/z0000_y0100_x0000.json",
    }  # fmt: skip
    assert set_aside(checked) == []


def test_a_damaged_list_of_tiles_is_set_aside(folder):
    path = folder / "batches" / f"{TILES[0]}.json"
    path.write_text(path.read_text().replace("tiles", "tilez"))
    (warning,) = set_aside(in_pairs())
    assert f"results/v/batches/{path.name}: damaged" in warning
    assert not path.exists()
    assert set_aside(in_pairs()) == []
