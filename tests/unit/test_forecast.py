"""What a run will take: jobs, bytes and hours, and the command that prints them."""

import json
import re

import numpy as np
import pytest
import tifffile
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.workflow.conftest import save_identity
from voxmill.__main__ import main
from voxmill.commands import COMMANDS
from voxmill.runtime import rates
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.rates import predicted_as, recall, remember
from voxmill.tiles.forecast import forecast, needed_bytes, report, told, window_voxels
from voxmill.tiles.grid import Grid
from voxmill.tiles.plan import Plan, PlannedVolume
from voxmill.tiles.plan_volume import plan_volume

PREDICTION = {"device": "auto", "backend": "auto", "precision": "float32", "flips": False}
triples = st.tuples(*[st.integers(1, 9)] * 3)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A machine of its own, on which no job has run yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "voxmill" / "rates"


def wanted(**changes):
    return {
        "per_job": 3, "per_cut": 6, "keep": "all", "networks": {"a": "a" * 64},
        "prediction": PREDICTION, "stitching": {"dtype": "uint16", "formats": ["ome-zarr"]},
        "check_jobs": 1, "stitch_jobs": 2,
    } | changes  # fmt: skip


@given(triples, triples, st.tuples(*[st.integers(0, 4)] * 3))
def test_voxels_of_all_windows_are_those_of_the_tiles_one_by_one(shape, tile_shape, halo):
    volume = PlannedVolume(shape, "uint16", (1, 1, 1))
    tiles = Plan(volume, "f", tile_shape, halo).tiles
    grid = Grid(shape, tile_shape)
    assert window_voxels(grid, halo) == sum(tile.window.size for tile in tiles)
    assert window_voxels(grid, (0, 0, 0)) == np.prod(shape)


# Seven tiles of 2 x 2 x 2 in a row of 14; with a halo of 1 two windows of 3 and five of 4 along x.
GRID, HALO = Grid((2, 2, 14), (2, 2, 2)), (0, 0, 1)


def test_jobs_and_bytes_of_a_volume_counted_by_hand():
    cut, predicted, checked, stitched = forecast(GRID, HALO, 2, wanted())
    assert (cut.what, cut.jobs, cut.voxels) == ("cut", 2, 104)
    assert (cut.kept_bytes, cut.passing_bytes, cut.hours) == (208, 0, None)
    assert (predicted.what, predicted.jobs, predicted.voxels) == ("predict a", 3, 104)
    assert (predicted.kept_bytes, stitched.kept_bytes) == (2 * 56, 16)
    assert (stitched.what, stitched.jobs, stitched.voxels) == ("stitch a", 2, 8)
    assert (checked.what, checked.jobs, checked.voxels, checked.kept_bytes) == ("check a", 1, 56, 0)
    both = wanted(stitching={"dtype": "float32", "formats": ["ome-zarr", "ome-tiff"]})
    _, predicted, _, stitched = forecast(GRID, HALO, 2, both)
    assert (predicted.kept_bytes, stitched.kept_bytes) == (4 * 56, 4 * 56 + 32)


def test_labels_are_told_of_apart():
    remember("label", 10**6, 2.0)
    labels, levels = forecast(GRID, HALO, 2, wanted(labels={"formats": ["ome-zarr"]}))[4:]
    assert (labels.what, labels.jobs, labels.voxels, labels.kept_bytes) == ("label a", 1, 56, 224)
    assert labels.hours == pytest.approx(56 / 5e5 / 3600)
    assert (levels.what, levels.jobs, levels.voxels, levels.kept_bytes) == (
        "label levels a", 2, 8, 32,
    )  # fmt: skip
    assert levels.hours is None
    steps = forecast(GRID, HALO, 2, wanted(labels={"formats": ["ome-zarr", "ome-tiff"]}))
    assert steps[-1].kept_bytes == 32 + 224
    assert needed_bytes(steps) == 208 + 112 + 16
    assert told(steps, 10**9, "x") == (
        "336 bytes to keep in all (480 bytes more by `snakemake segment`); 1.0 GB are free in x"
    )
    assert "more" not in told(steps[:4], 10**9, "x")


def test_tiles_that_are_not_kept_take_no_space_in_the_end():
    cut, *_ = forecast(GRID, HALO, 2, wanted(keep="until-predicted"))
    assert (cut.kept_bytes, cut.passing_bytes) == (0, 208)
    steps = forecast(GRID, HALO, 2, wanted(keep="none", networks={"a": "a", "b": "b"}))
    kinds = ("predict", "check", "stitch")
    assert [step.what for step in steps] == [f"{kind} {n}" for n in "ab" for kind in kinds]


def test_hours_are_those_of_the_last_job_of_the_kind():
    on = {device: predicted_as("a" * 64, PREDICTION | {"device": device}) for device in
          ("cpu", "cuda")}  # fmt: skip
    remember("cut", 10**7, 1.0)
    remember(on["cpu"], 10**6, 10.0)
    remember("check", 10**6, 2.0)
    remember("stitch", 10**6, 4.0)
    cut, predicted, checked, stitched = forecast(GRID, HALO, 2, wanted())
    assert checked.hours == pytest.approx(56 / 5e5 / 3600)
    assert stitched.hours == pytest.approx(8 / 2.5e5 / 3600)
    assert cut.hours == pytest.approx(104 / 1e7 / 3600)
    assert predicted.hours == pytest.approx(104 / 1e5 / 3600)
    # Where the device is auto, the rate of a GPU counts, if there is one.
    remember(on["cuda"], 10**8, 1.0)
    assert forecast(GRID, HALO, 2, wanted())[1].hours == pytest.approx(104 / 1e8 / 3600)
    other = wanted(prediction=PREDICTION | {"flips": True})
    assert forecast(GRID, HALO, 2, other)[1].hours is None
    text = report("volume v", GRID, HALO, forecast(GRID, HALO, 2, wanted()))
    assert "100.00 Mvoxel/s on a GPU" in text


def test_tiny_jobs_say_nothing_about_large_ones(cache):
    remember("cut", 1000, 1.0)
    assert recall("cut") is None
    assert not cache.exists()


@pytest.mark.parametrize("content", ["", "[]", '{"what": "cut"}'])
def test_a_broken_cache_is_no_cache(cache, content):
    cache.mkdir(parents=True)
    (cache / "cut.json").write_text(content)
    assert recall("cut") is None


def test_a_cache_that_cannot_be_written_is_no_error(monkeypatch):
    def refuse(*_):
        raise VoxmillError("full")

    monkeypatch.setattr(rates, "write_json", refuse)
    remember("cut", 10**7, 1.0)
    assert recall("cut") is None


@pytest.fixture
def configured(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_identity(tmp_path / "identity.safetensors")
    tifffile.imwrite(tmp_path / "v.tif", np.zeros((4, 10, 20), np.uint16), photometric="minisblack")
    content = {
        "volumes": {"v": {"path": "v.tif", "voxel_size_um": [2, 1, 1]}},
        "networks": {"identity": {"weights": "identity.safetensors"}},
        "tiles": {"shape_vox": [4, 5, 10], "halo_vox": 2},
    }
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(content))
    return tmp_path


def test_the_command_prints_a_table_a_volume(configured, capsys):
    assert main(["plan", "my.yaml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "volume v: 4 x 10 x 20 voxels, 4 tiles of up to 4 x 5 x 10 with a halo of (2, 2, 2)"
    )
    assert lines[2].split()[:5] == ["cut", "4", "1.34e+03", "2.7", "kB"]
    assert lines[3].split()[:3] == ["predict", "identity", "4"]
    assert lines[-1].endswith(f"are free in {configured}.")


def test_the_command_warns_of_a_disk_that_is_too_small(configured, capsys, monkeypatch):
    import shutil

    usage = shutil.disk_usage(configured)._replace(free=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert main(["plan", "my.yaml"]) == 0
    assert "The disk has too little space: see tiles.keep" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"my\.yaml: .*(cannot be read|does not exist)"),
        ("- a", r"expected sections such as volumes and networks"),
        ("volumes: {v: {path: w.tif}}", r"networks: expected at least one network"),
        ("tiles: {keep: some}", r"tiles\.keep: expected one of all, until-predicted, none"),
        ("tiles: {per_job: 0}", r"tiles\.per_job"),
    ],
)
def test_what_is_wrong_with_a_configuration_is_one_message(configured, capsys, text, message):
    path = configured / "my.yaml"
    path.unlink()
    if text is not None:
        path.write_text(text)
    assert main(["plan", "my.yaml"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("Error: my.yaml")
    assert "Traceback" not in said
    assert re.search(message, said), said


def test_the_default_type_is_counted(configured, capsys):
    main(["plan", "my.yaml"])
    # 4 x 10 x 20 voxels of two bytes.
    assert capsys.readouterr().out.splitlines()[3].split()[4:6] == ["1.6", "kB"]


def test_the_help_names_every_command(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    assert all(name in said for name in COMMANDS)


def test_the_log_of_the_plan_tells_what_the_run_will_take(configured):
    plan_volume(
        volume={"path": "v.tif", "voxel_size_um": (2.0, 1.0, 1.0)}, fingerprint="f",
        tile_shape_vox=(4, 5, 10), halo_vox=(2, 2, 2), halo_paths=[], output_path="plan.json",
        forecast=wanted(), log_path="plan.log",
    )  # fmt: skip
    text = (configured / "plan.log").read_text()
    assert "the run: 4 x 10 x 20 voxels, 4 tiles" in text
    assert "predict a" in text
    assert "to keep in all" in text
    assert "tiles" not in json.loads((configured / "plan.json").read_text())
