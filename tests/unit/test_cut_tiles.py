"""Tiles that one job cuts: what is whole is kept, what is not is cut again."""

import dataclasses
import json

import numpy as np
import pytest
import tifffile

from voxmill.tiles.cut_tiles import cut_tiles
from voxmill.tiles.plan import Plan, PlannedVolume, write_plan
from voxmill.tiles.tile_source import open_tiles
from voxmill.volumes import fingerprint, read_header, read_tile
from voxmill.volumes.tiles import write_tile

SHAPE = (3, 4, 7)
SIZE_UM = (2.0, 1.0, 1.0)
PLAN = Plan(PlannedVolume(SHAPE, "uint16", SIZE_UM), "phantom of a test", (3, 4, 3), (0, 0, 1))
NAMES = list(PLAN.grid.names)
VOLUME = np.arange(84, dtype=np.uint16).reshape(SHAPE)


@pytest.fixture
def cut(tmp_path):
    tifffile.imwrite(tmp_path / "v.tif", VOLUME, photometric="minisblack")
    write_plan(tmp_path / "plan.json", PLAN)

    def run(tiles=NAMES, code="c", output="batch.json", folder="tiles"):
        cut_tiles(
            volume={"path": str(tmp_path / "v.tif"), "voxel_size_um": SIZE_UM},
            plan_path=str(tmp_path / "plan.json"), tiles=tiles, folder=str(tmp_path / folder),
            output_path=str(tmp_path / output), code=code, log_path=tmp_path / "cut.log",
        )  # fmt: skip
        return (tmp_path / "cut.log").read_text()

    return run


def times(folder):
    return [(folder / f"{name}.tif").stat().st_mtime_ns for name in NAMES]


def test_each_tile_is_a_file_and_the_manifest_lists_them(cut, tmp_path):
    assert "0 of 3 tiles are there already" in cut()
    entries = json.loads((tmp_path / "batch.json").read_text())["tiles"]
    assert [entry["name"] for entry in entries] == NAMES
    for tile, entry in zip(PLAN.tiles, entries, strict=True):
        path = tmp_path / "tiles" / f"{tile.name}.tif"
        found = read_tile(path, tile.window.shape, "uint16", {"tile": tile.key, "made_with": "c"})
        np.testing.assert_array_equal(found, VOLUME[tile.window.slices])
        assert (entry["bytes"], entry["tile"]) == (path.stat().st_size, tile.key)


def test_what_is_whole_is_kept_and_the_rest_is_cut_again(cut, tmp_path):
    cut()
    before, manifest = times(tmp_path / "tiles"), (tmp_path / "batch.json").read_bytes()
    (tmp_path / "tiles" / f"{NAMES[0]}.tif").unlink()
    damaged = tmp_path / "tiles" / f"{NAMES[2]}.tif"
    with tifffile.TiffFile(damaged) as tif:
        last = tif.pages[-1].dataoffsets[0] + tif.pages[-1].databytecounts[0] - 1
    content = bytearray(damaged.read_bytes())
    content[last] ^= 1
    damaged.write_bytes(content)
    log = cut()
    assert "1 of 3 tiles are there already" in log
    assert "damaged: page 2 doesn't match its checksum" in log
    after = times(tmp_path / "tiles")
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, True, False]
    assert (tmp_path / "batch.json").read_bytes() == manifest


def test_tiles_that_other_code_cut_are_cut_again(cut):
    cut()
    assert "0 of 3 tiles are there already" in cut(code="d")


def test_a_folder_that_is_removed_later_gets_its_name_when_all_are_whole(cut, tmp_path):
    with pytest.raises(SystemExit):
        cut(tiles=[*NAMES[:2], "z9"], folder="cut/.b", output="cut/b")
    assert not (tmp_path / "cut" / "b").exists()
    cut(tiles=NAMES[:2], folder="cut/.b", output="cut/b")
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == ["b"]
    names = sorted(path.name for path in (tmp_path / "cut" / "b").iterdir())
    assert names == [f"{name}.tif" for name in NAMES[:2]]


def test_a_disk_without_room_for_all_is_refused_before_the_first(cut, tmp_path, monkeypatch):
    monkeypatch.setattr("voxmill.runtime.disk._free_bytes", lambda folder: 100)
    with pytest.raises(SystemExit):
        cut()
    # Windows of 4, 5 and 2 voxels along x, of 3 x 4 voxels of two bytes each.
    assert "the disk has too little space. About 264 bytes are needed" in (
        (tmp_path / "cut.log").read_text()
    )
    assert list((tmp_path / "tiles").iterdir()) == []


def test_files_and_the_volume_give_the_same_tiles(cut, tmp_path):
    cut()
    volume = {"path": str(tmp_path / "v.tif"), "voxel_size_um": SIZE_UM}
    with (
        open_tiles({"folder": str(tmp_path / "tiles")}, PLAN) as files,
        open_tiles({"volume": volume}, PLAN) as windows,
    ):
        for tile in PLAN.tiles:
            np.testing.assert_array_equal(files.read(tile), windows.read(tile))


def test_a_volume_that_holds_nan_is_refused_where_it_is_read(cut, tmp_path):
    bad = VOLUME.astype(np.float32)
    bad[1, 2, 3] = np.nan
    tifffile.imwrite(tmp_path / "v.tif", bad, photometric="minisblack")
    with pytest.raises(SystemExit):
        cut()
    assert "v.tif" in (tmp_path / "cut.log").read_text()
    assert not (tmp_path / "batch.json").exists()


def test_tiles_of_a_volume_that_is_replaced_meanwhile_are_removed(cut, tmp_path, monkeypatch):
    planned = fingerprint(read_header(tmp_path / "v.tif", voxel_size_um=SIZE_UM))
    write_plan(tmp_path / "plan.json", dataclasses.replace(PLAN, fingerprint=planned))

    def replaced(path, *arguments):
        # At once: the next tile is read while this one is written.
        tifffile.imwrite(tmp_path / "new.tif", VOLUME + 1, photometric="minisblack")
        (tmp_path / "new.tif").replace(tmp_path / "v.tif")
        write_tile(path, *arguments)

    monkeypatch.setattr("voxmill.tiles.cut_tiles.write_tile", replaced)
    with pytest.raises(SystemExit):
        cut()
    assert "v.tif: expected the volume that this run was planned with" in (
        (tmp_path / "cut.log").read_text()
    )
    assert list((tmp_path / "tiles").glob("*.tif")) == []
    monkeypatch.undo()
    with pytest.raises(SystemExit):
        cut()
    assert list((tmp_path / "tiles").glob("*.tif")) == [], "refused before the first"
