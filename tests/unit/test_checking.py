"""`python -m voxmill check` and `repair`."""

import hashlib
import json

import numpy as np
import pytest

from voxmill.__main__ import main
from voxmill.checking import products
from voxmill.checking.check import check_run
from voxmill.runtime import receipts
from voxmill.runtime.checked import write_checked, write_checked_json
from voxmill.tiles.plan import Plan, PlannedVolume, write_plan
from voxmill.volumes import write_tile

PLAN = Plan(PlannedVolume((4, 5, 6), "uint16", (1.0, 1.0, 1.0)), "f", (4, 5, 3), (0, 0, 0))
NETWORK = "results/v/net"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A folder with a product of each kind."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / NETWORK).mkdir(parents=True)
    write_plan("results/v/plan.json", PLAN)
    for tile in PLAN.tiles:
        voxels = np.arange(np.prod(tile.window.shape)).reshape(tile.window.shape)
        path = f"results/v/tiles/{tile.name}.tif"
        write_tile(path, voxels.astype("uint16"), extra={"tile": tile.key})
    table = tmp_path / NETWORK / "cells.csv"
    table.write_text("id,z_vox\n1,2\n")
    receipts.write_receipts([table], "find_cells", "identity")
    write_checked(f"{NETWORK}/.denoising.pt", b"state of a fit")
    shard = tmp_path / NETWORK / products.IMAGE / "0" / "c" / "0" / "0" / "0"
    shard.parent.mkdir(parents=True)
    shard.write_bytes(b"voxels")
    stored = {"key": "c/0/0/0", "bytes": 6, "sha256": hashlib.sha256(b"voxels").hexdigest()}
    empty = {"key": "c/0/0/1", "bytes": 0, "sha256": ""}
    write_checked_json(f"{NETWORK}/predictions/z0000_y0000_x0000.json", {"shard": stored})
    write_checked_json(f"{NETWORK}/levels/0/z0000.json", {"shards": [stored, empty]})
    return tmp_path


def flip(path, at=-1):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


TILE = f"results/v/tiles/{PLAN.tiles[0].name}.tif"
# In the middle of its pages; what stands behind them is nothing that is read.
VOXELS = 460
SHARD = f"{NETWORK}/{products.IMAGE}/0/c/0/0/0"
PREDICTION = f"{NETWORK}/predictions/z0000_y0000_x0000.json"
LEVEL = f"{NETWORK}/levels/0/z0000.json"


def test_a_whole_run(run, capsys):
    assert main(["check"]) == 0
    assert "7 files checked: 7 whole, 0 broken; 0 missing; 0 without" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "at", "removed"),
    [
        ("results/v/plan.json", 30, {"results/v/plan.json"}),
        (TILE, VOXELS, {TILE}),
        (TILE, 0, {TILE}),
        (f"{NETWORK}/cells.csv", 5, {f"{NETWORK}/cells.csv", f"{NETWORK}/.made/cells.csv.json"}),
        (
            f"{NETWORK}/.made/cells.csv.json", 30,
            {f"{NETWORK}/cells.csv", f"{NETWORK}/.made/cells.csv.json"},
        ),
        (f"{NETWORK}/.denoising.pt", -1, {f"{NETWORK}/.denoising.pt"}),
        (f"{NETWORK}/.denoising.pt", 0, {f"{NETWORK}/.denoising.pt"}),
        (SHARD, 2, {SHARD, PREDICTION, LEVEL}),
        (PREDICTION, 10, {PREDICTION}),
    ],
)  # fmt: skip
def test_a_flipped_bit_is_named_and_repaired(run, capsys, file, at, removed):
    before = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    flip(run / file, at)
    assert main(["check"]) == 1
    assert f"broken   {file}" in capsys.readouterr().out or file != TILE
    assert main(["repair", "--dry-run"]) == 0
    assert all((run / name).exists() for name in before)
    assert main(["repair"]) == 0
    left = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert before - left == removed
    assert main(["check"]) == 0


def test_what_a_killed_job_left_is_removed_by_repair(run, capsys):
    lock, scratch = (run / NETWORK / name for name in (".cells.csv.lock", ".node-7.cells.csv"))
    scratch.write_text("id,z_")
    lock.write_text(scratch.name)
    assert main(["repair", "--dry-run"]) == 0
    assert lock.exists() and scratch.exists()
    assert main(["repair"]) == 0
    assert f"removed  {scratch.relative_to(run)}" in capsys.readouterr().out
    assert not lock.exists() and not scratch.exists()


def test_a_truncated_tile_and_one_of_another_place(run):
    first, second = (run / "results/v/tiles" / f"{tile.name}.tif" for tile in PLAN.tiles)
    first.write_bytes(second.read_bytes())
    second.write_bytes(second.read_bytes()[:VOXELS])
    problems = {item.path.name: item.problem for item in check_run(["results"]).broken}
    assert "expected tile" in problems[first.name]
    assert "truncated" in problems[second.name]


def test_a_missing_shard_and_a_file_that_nobody_knows(run):
    (run / SHARD).unlink()
    (run / NETWORK / "notes.txt").write_text("mine")
    (run / NETWORK / "mine.json").write_text(json.dumps({"a": 1}))
    found = check_run(["results"])
    assert {item.path.as_posix() for item in found.broken} == {PREDICTION, LEVEL}
    assert all("is missing" in item.problem for item in found.broken)
    assert {path.name for path in found.unchecked} == {"notes.txt", "mine.json"}


def test_what_a_configuration_asks_for_is_missing(run):
    found = check_run(["results/v"], ["results/v/plan.json", "results/v/truth.csv"])
    assert found.missing == ["results/v/truth.csv"]


@pytest.mark.parametrize("content", [None, "[1, 2]", "volumes: [", "volumez: {}"])
def test_a_wrong_configuration(run, capsys, content):
    if content is not None:
        (run / "my.yaml").write_text(content)
    assert main(["check", "my.yaml"]) == 1
    assert "Error: " in capsys.readouterr().err


def test_nothing_to_check(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for command in ("check", "repair"):
        assert main([command]) == 1
        assert "results: this folder does not exist" in capsys.readouterr().err


def test_unknown_commands(capsys):
    assert main(["chekc"]) == main([]) == 2
    assert "check,repair}" in capsys.readouterr().err
