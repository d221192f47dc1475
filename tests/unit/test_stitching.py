"""Cutting and stitching are inverse: with the identity for a network the volume comes back."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from voxmill.runtime.checked import write_checked_json
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import read_json
from voxmill.tiles.check_slab import check_slab
from voxmill.tiles.cut_tiles import cut_tiles
from voxmill.tiles.grid import plan_tiles
from voxmill.tiles.plan import PlannedVolume, make_plan, read_plan
from voxmill.tiles.plan_volume import plan_volume
from voxmill.tiles.slab import PredictedCore
from voxmill.tiles.stitch_volume import assemble_slab, stitch_volume
from voxmill.volumes import open_volume, read_header, read_tile, write_tile

SHAPE = (7, 9, 11)
SIZE_UM = (2.0, 1.0, 0.5)


class Pages:
    """An array with the interface of an opened tile."""

    def __init__(self, array):
        self.read = array.__getitem__


@given(
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.integers(1, 10)] * 3),
    st.tuples(*[st.integers(0, 4)] * 3),
)
def test_stitch_after_cut_is_the_identity(shape, tile_shape, halo):
    volume = np.random.default_rng(0).random(shape).astype(np.float32)
    slabs = {}
    for tile in plan_tiles(shape, tile_shape, halo):
        window = volume[tile.window.slices]
        cores, pages = slabs.setdefault(tile.core.start[0], ([], {}))
        cores.append(PredictedCore(tile.name, tile.core, "", {}))
        pages[tile.name] = Pages(window[tile.core_in_window.slices])
    planes = [p for _, slab in sorted(slabs.items()) for p in assemble_slab(*slab, shape[1:])]
    np.testing.assert_array_equal(np.stack(planes), volume)


@pytest.fixture
def run(tmp_path):
    """A float volume cut, 'predicted' by the identity, checked slab by slab."""
    volume = np.random.default_rng(1).random(SHAPE).astype(np.float32)
    tifffile.imwrite(tmp_path / "v.tif", volume)
    source = {"path": str(tmp_path / "v.tif"), "voxel_size_um": SIZE_UM}
    plan_path = tmp_path / "plan.json"
    plan_volume(
        volume=source, fingerprint="f", tile_shape_vox=(4, 4, 6), halo_vox=(1, 2, 3),
        halo_paths=[], output_path=plan_path,
    )  # fmt: skip
    plan = read_plan(plan_path)
    cut_tiles(
        volume=source, plan_path=plan_path, tiles=plan.grid.names, folder=str(tmp_path),
        output_path=str(tmp_path / "tiles.json"), code="c",
    )  # fmt: skip
    predictions = {}
    for tile in plan.tiles:
        name = tile.name
        cut = tmp_path / f"{name}.tif"
        voxels = read_tile(cut, tile.window.shape, "float32", {"tile": tile.key})
        predictions[name] = str(tmp_path / "predictions" / f"{name}.tif")
        write_tile(
            predictions[name], np.ascontiguousarray(voxels[tile.core_in_window.slices]), SIZE_UM,
            tile.core.start, {"tile": tile.key, "model": "m"},
        )  # fmt: skip
    return tmp_path, volume, plan, predictions


def check(run, slab, model="m"):
    folder = run[0]
    output = folder / f"{slab}.json"
    check_slab(
        plan_path=folder / "plan.json", slab=slab, predictions_folder=folder / "predictions",
        model=model, output_path=output,
    )  # fmt: skip
    return output


def stitch(run, manifests):
    folder = run[0]
    stitch_volume(
        plan_path=folder / "plan.json", manifest_paths=manifests,
        output_path=folder / "s.ome.tif", compression="none",
    )  # fmt: skip
    return folder / "s.ome.tif"


def test_files_cut_and_stitched_give_the_volume_back_bit_for_bit(run):
    path = stitch(run, [check(run, "z0004"), check(run, "z0000")])
    np.testing.assert_array_equal(tifffile.imread(path), run[1])
    header = read_header(path)
    assert header.voxel_size_um == SIZE_UM
    with open_volume(header) as volume:
        np.testing.assert_array_equal(
            volume.read_window((1, 2, 3), (5, 6, 7)), run[1][1:5, 2:6, 3:7]
        )


def test_predictions_of_another_model_are_refused(run, capsys):
    with pytest.raises(SystemExit):
        check(run, "z0000", model="another")
    assert "expected model another, found m" in capsys.readouterr().err


def test_a_flipped_bit_is_noticed_and_the_tile_named(run, capsys):
    manifests = [check(run, "z0000"), check(run, "z0004")]
    victim = run[3]["z0004_y0004_x0006"]
    with tifffile.TiffFile(victim) as tif:
        position = tif.pages.first.dataoffsets[0] + 9
    with open(victim, "r+b") as file:
        file.seek(position)
        byte = file.read(1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 4]))
    with pytest.raises(SystemExit):
        stitch(run, manifests)
    error = capsys.readouterr().err
    assert "z0004_y0004_x0006.tif: damaged" in error
    assert "Delete it and run again" in error
    assert not (run[0] / "s.ome.tif").exists()


def test_a_missing_prediction_is_named(run, capsys):
    Path(run[3]["z0000_y0004_x0006"]).unlink()
    with pytest.raises(SystemExit):
        check(run, "z0000")
    assert "z0000_y0004_x0006.tif: this tile does not exist" in capsys.readouterr().err


def test_a_slab_that_the_plan_has_not_is_an_error(run, capsys):
    with pytest.raises(SystemExit):
        check(run, "z0009")
    assert "expected tiles of slab z0009, found none" in capsys.readouterr().err


def test_a_manifest_changes_with_a_prediction(run):
    before = check(run, "z0000").read_bytes()
    assert check(run, "z0000").read_bytes() == before
    name = "z0000_y0004_x0006"
    tile = run[2].tile(name)
    other = np.zeros(tile.core.shape, np.float32)
    write_tile(run[3][name], other, SIZE_UM, tile.core.start, {"tile": tile.key, "model": "m"})
    assert check(run, "z0000").read_bytes() != before


def test_keys_change_with_volume_grid_and_halo():
    source = PlannedVolume((4, 4, 4), "uint8", (1, 1, 1))
    plans = [
        make_plan(source, "f", (2, 2, 2), (1, 1, 1)),
        make_plan(source, "g", (2, 2, 2), (1, 1, 1)),
        make_plan(source, "f", (2, 2, 3), (1, 1, 1)),
        make_plan(source, "f", (2, 2, 2), (1, 1, 2)),
        make_plan(dataclasses.replace(source, dtype="int16"), "f", (2, 2, 2), (1, 1, 1)),
    ]
    first = [plan.tiles[0].key for plan in plans]
    assert plans[0] == make_plan(source, "f", (2, 2, 2), (1, 1, 1))
    assert len(set(first)) == len(plans)


def test_an_unknown_tile_is_an_error(run):
    with pytest.raises(VoxmillError, match=r"expected tile z9, found 12 others"):
        run[2].tile("z9")


def test_the_halo_of_a_plan_is_the_largest_measured(tmp_path):
    tifffile.imwrite(tmp_path / "v.tif", np.arange(125, dtype=np.uint8).reshape(5, 5, 5))
    for name, halo in (("a", [3, 1, 1]), ("b", [2, 2, 1])):
        write_checked_json(tmp_path / name, {"halo_vox": halo})
    plan_volume(
        volume={"path": tmp_path / "v.tif", "voxel_size_um": SIZE_UM}, fingerprint="f",
        tile_shape_vox=(2, 2, 2), halo_vox=None, halo_paths=[tmp_path / "a", tmp_path / "b"],
        output_path=tmp_path / "plan.json",
    )  # fmt: skip
    assert read_json(tmp_path / "plan.json")["halo_vox"] == [3, 2, 1]
