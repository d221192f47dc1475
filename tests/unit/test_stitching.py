"""Cutting and stitching are inverse: with the identity for a network the volume comes back."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st

from voxmill.geometry import Box
from voxmill.runtime.checked import write_checked_json
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import read_json
from voxmill.tiles.build_level import build_level
from voxmill.tiles.check_slab import check_slab
from voxmill.tiles.cut_tiles import cut_tiles
from voxmill.tiles.export_tiff import export_tiff
from voxmill.tiles.plan import Plan, PlannedVolume, read_plan, write_plan
from voxmill.tiles.plan_volume import plan_volume
from voxmill.tiles.predicted import PlannedImage, PredictedTile, forget, lost_tiles
from voxmill.tiles.stitch_volume import stitch_volume
from voxmill.volumes import fingerprint, open_volume, read_header, read_tile
from voxmill.volumes.pyramid import reduce_mean
from voxmill.volumes.shard_files import shard_key

SHAPE = (7, 9, 11)
SIZE_UM = (2.0, 1.0, 0.5)
IMAGE = "probability.ome.zarr"


STORAGE = {"dtype": "float32", "compression": "zstd"}


@given(
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.integers(1, 10)] * 3),
    st.tuples(*[st.integers(0, 4)] * 3),
)
def test_every_core_is_one_shard(shape, tile_shape, halo):
    plan = Plan(PlannedVolume(shape, "uint8", SIZE_UM), "f", tile_shape, halo)
    array = PlannedImage.planned("p.zarr", plan, STORAGE).arrays[0]
    indices = [array.index_of(tile.core.start) for tile in plan.tiles]
    assert [array.box(index) for index in indices] == [tile.core for tile in plan.tiles]
    rows = (array.indices(row) for row in range(array.shards[0]))
    assert indices == [index for row in rows for index in row]


@pytest.fixture
def run(tmp_path):
    """A float volume cut, 'predicted' by the identity; the cores are shards of a float array."""
    volume = np.random.default_rng(1).random(SHAPE).astype(np.float32)
    volume[4:, :4, 6:] = 0  # an empty tile
    tifffile.imwrite(tmp_path / "v.tif", volume)
    source = {"path": str(tmp_path / "v.tif"), "voxel_size_um": SIZE_UM}
    plan_path = tmp_path / "plan.json"
    plan_volume(
        volume=source, fingerprint=fingerprint(read_header(**source)),
        tile_shape_vox=(4, 4, 6), halo_vox=(1, 2, 3),
        halo_paths=[], output_path=plan_path,
    )  # fmt: skip
    plan = read_plan(plan_path)
    cut_tiles(
        volume=source, plan_path=plan_path, tiles=plan.grid.names, folder=str(tmp_path),
        output_path=str(tmp_path / "tiles.json"), code="c",
    )  # fmt: skip
    array = PlannedImage.planned(tmp_path / IMAGE, plan, STORAGE).arrays[0]
    for tile in plan.tiles:
        cut = tmp_path / f"{tile.name}.tif"
        voxels = read_tile(cut, tile.window.shape, "float32", {"tile": tile.key})
        predict(tmp_path, array, tile, voxels[tile.core_in_window.slices])
    return tmp_path, volume, plan, array


def predict(folder, array, tile, core, **identity):
    identity = {"tile": tile.key, "model": "m", "array": array.digest} | identity
    stored = array.write_shard(array.index_of(tile.core.start), np.ascontiguousarray(core))
    PredictedTile(tile.name, identity, stored).write(folder / "predictions" / f"{tile.name}.json")


def check(run, slab, model="m", storage=STORAGE, part=None):
    folder = run[0]
    output = folder / f"{slab}.json"
    check_slab(
        plan_path=folder / "plan.json", slab=slab, predictions_folder=folder / "predictions",
        image_path=folder / IMAGE, storage=storage, model=model, output_path=output, threads=2,
        part=part,
    )  # fmt: skip
    return output


def stitch(run, manifests, storage=STORAGE, pilot=False):
    folder = run[0]
    stitch_volume(
        plan_path=folder / "plan.json", manifest_paths=manifests, image_path=folder / IMAGE,
        storage=storage, network="n", model="m", pilot=pilot,
    )  # fmt: skip
    return folder / IMAGE


def test_files_cut_and_stitched_give_the_volume_back_bit_for_bit(run):
    path = stitch(run, [check(run, "z0004"), check(run, "z0000")])
    np.testing.assert_array_equal(zarr.open_group(path, mode="r")["0"][...], run[1])
    header = read_header(path)
    assert header.voxel_size_um == SIZE_UM
    with open_volume(header) as volume:
        np.testing.assert_array_equal(
            volume.read_window((1, 2, 3), (5, 6, 7)), run[1][1:5, 2:6, 3:7]
        )
    told = json.loads((path / "zarr.json").read_text())["attributes"]["voxmill"]
    assert len(told.pop("shards_sha256")) == 64
    assert told == {"network": "n", "model": "m", "meaning": "probability = stored"}


def test_a_pilot_is_an_image_of_its_part_and_leaves_the_rest_alone(run, capsys):
    folder, volume, plan, array = run
    inside = [tile for tile in plan.slab("z0000") if tile.core.start[2] == 0]
    for tile in set(plan.tiles) - set(inside):
        (folder / "predictions" / f"{tile.name}.json").unlink()
    part = [inside[0].core.start, inside[-1].core.stop]
    before = sorted((folder / IMAGE / "0/c").glob("*/*/*"))
    manifest = check(run, "z0000", part=part)
    path = stitch(run, [manifest], pilot=True)
    assert sorted((path / "0/c").glob("*/*/*")) == before
    box = Box(*part)
    with open_volume(read_header(path)) as image:
        assert image.shape == volume.shape
        np.testing.assert_array_equal(image.read_window(*box), volume[box.slices])
    # A shard of the part that is lost is missed; the whole volume misses the others.
    with pytest.raises(SystemExit):
        stitch(run, [manifest])
    assert "more. Delete its list of shards" in capsys.readouterr().err
    Path(array.path, shard_key(array.index_of(inside[0].core.start))).unlink()
    with pytest.raises(SystemExit):
        stitch(run, [manifest], pilot=True)


def test_predictions_of_another_model_are_refused(run, capsys):
    with pytest.raises(SystemExit):
        check(run, "z0000", model="another")
    assert "expected model another, found m" in capsys.readouterr().err


def test_predictions_stored_in_another_way_are_refused(run, capsys):
    with pytest.raises(SystemExit):
        check(run, "z0000", storage=STORAGE | {"compression": "none"})
    assert "expected array" in capsys.readouterr().err
    manifests = [check(run, "z0000"), check(run, "z0004")]
    with pytest.raises(SystemExit):
        stitch(run, manifests, STORAGE | {"dtype": "float16"})
    assert "z0000.json: array: expected" in capsys.readouterr().err


def test_a_flipped_bit_is_noticed_and_the_tile_named(run, capsys):
    victim = run[0] / IMAGE / "0/c/1/1/1"
    data = bytearray(victim.read_bytes())
    data[9] ^= 4
    victim.write_bytes(data)
    with pytest.raises(SystemExit):
        check(run, "z0004")
    error = capsys.readouterr().err
    assert "0/c/1/1/1: damaged" in error
    assert "predictions/z0004_y0004_x0006.json and run again" in error


def test_an_edited_identity_is_noticed(run, capsys):
    path = run[0] / "predictions/z0000_y0000_x0000.json"
    path.write_text(path.read_text().replace('"model": "m"', '"model": "n"'))
    with pytest.raises(SystemExit):
        check(run, "z0000", model="n")
    assert "z0000_y0000_x0000.json: damaged or edited" in capsys.readouterr().err


def test_a_missing_prediction_is_named(run, capsys):
    (run[0] / "predictions/z0000_y0004_x0006.json").unlink()
    with pytest.raises(SystemExit):
        check(run, "z0000")
    assert "z0000_y0004_x0006.json: this prediction does not exist" in capsys.readouterr().err


def test_a_missing_shard_is_named_before_the_image_is_whole(run, capsys):
    manifests = [check(run, "z0000"), check(run, "z0004")]
    with pytest.raises(SystemExit):
        stitch(run, manifests[:1])
    assert "expected 12 shards, found none of c/1/0/0 and 5 more" in capsys.readouterr().err
    (run[0] / IMAGE / "0/c/1/2/1").unlink()
    with pytest.raises(SystemExit):
        stitch(run, manifests)
    assert "expected 12 shards, found none of c/1/2/1. Delete its list" in capsys.readouterr().err
    assert not (run[0] / IMAGE / "zarr.json").exists()
    with pytest.raises(SystemExit):
        check(run, "z0004")
    assert "0/c/1/2/1: this shard does not exist" in capsys.readouterr().err


def test_shards_of_another_grid_are_removed(run):
    stray = run[0] / IMAGE / "0/c/7/0/0"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"old")
    stitch(run, [check(run, "z0000"), check(run, "z0004")])
    assert not stray.exists()


def test_lost_shards_are_told_from_empty_ones(run):
    folder, _, plan, array = run
    starts = [tile.core.start for tile in plan.tiles]
    assert lost_tiles(folder, starts, plan.tile_shape_vox) == []
    assert not Path(array.path, "c/1/0/1").exists()  # an empty one
    for key in ("c/1/1/0", "c/0/2/1"):
        Path(array.path, key).unlink()
    lost = lost_tiles(folder, starts, plan.tile_shape_vox)
    assert lost == ["z0000_y0008_x0006", "z0004_y0004_x0000"]
    slab = folder / "slabs/z0004.json"
    slab.parent.mkdir()
    slab.write_text("{}")
    forget(folder, lost[1])
    assert not (folder / "predictions" / f"{lost[1]}.json").exists()
    assert not slab.exists()
    assert lost_tiles(folder, starts, plan.tile_shape_vox) == lost[:1]
    assert lost_tiles(folder / "nothing", starts, plan.tile_shape_vox) == []


def test_a_slab_that_the_plan_has_not_is_an_error(run, capsys):
    with pytest.raises(SystemExit):
        check(run, "z0009")
    assert "expected tiles of slab z0009, found none" in capsys.readouterr().err


def test_a_manifest_changes_with_a_prediction(run):
    before = check(run, "z0000").read_bytes()
    assert check(run, "z0000").read_bytes() == before
    tile = run[2].tile("z0000_y0004_x0006")
    predict(run[0], run[3], tile, np.zeros(tile.core.shape, np.float32))
    assert check(run, "z0000").read_bytes() != before


def test_levels_are_made_row_by_row(tmp_path, capsys):
    """A long volume of which the middle level is made from two rows and from one."""
    shape = (9, 3, 300)
    plan = Plan(PlannedVolume(shape, "uint8", (1.0, 1.0, 1.0)), "f", (4, 3, 200), (0, 0, 0))
    write_plan(tmp_path / "plan.json", plan)
    storage = {"dtype": "uint8", "compression": "zstd"}
    image = PlannedImage.planned(tmp_path / IMAGE, plan, storage)
    voxels = np.random.default_rng(4).integers(0, 255, shape, np.uint8)
    for tile in plan.tiles:
        predict(tmp_path, image.arrays[0], tile, voxels[tile.core.slices])
    rows = [check((tmp_path,), slab, storage=storage) for slab in ("z0000", "z0004", "z0008")]
    assert [array.shape for array in image.arrays] == [shape, (5, 2, 150)]
    made = [tmp_path / "a.json", tmp_path / "b.json"]
    for row, path in enumerate(made):
        build_level(
            plan_path=tmp_path / "plan.json", manifest_paths=rows[2 * row : 2 * row + 2],
            image_path=tmp_path / IMAGE, storage=storage, level=1, row=row, output_path=path,
        )  # fmt: skip
    with pytest.raises(SystemExit):
        stitch((tmp_path,), [*rows, made[0]], storage)
    assert f"{tmp_path / IMAGE}/1: expected 2 shards, found none of c/1/0/0" in (
        capsys.readouterr().err
    )
    path = stitch((tmp_path,), [*rows, *made], storage)
    group = zarr.open_group(path, mode="r")
    np.testing.assert_array_equal(group["0"][...], voxels)
    np.testing.assert_array_equal(group["1"][...], reduce_mean(voxels, (2, 2, 2)))
    export_tiff(image_path=path / "zarr.json", output_path=tmp_path / "p.ome.tif")
    with tifffile.TiffFile(tmp_path / "p.ome.tif") as tif:
        assert (tif.is_bigtiff, tif.is_ome) == (True, True)
        levels = tif.series[0].levels
        assert [level.shape for level in levels] == [(9, 3, 300), (9, 2, 150)]
        np.testing.assert_array_equal(levels[0].asarray(), voxels)
        np.testing.assert_array_equal(levels[1].asarray(), reduce_mean(voxels, (1, 2, 2)))
        assert 'PhysicalSizeZ="1.0"' in tif.ome_metadata
    header = read_header(tmp_path / "p.ome.tif")
    assert (header.shape, header.voxel_size_um) == (shape, (1.0, 1.0, 1.0))


def test_keys_change_with_volume_grid_and_halo():
    source = PlannedVolume((4, 4, 4), "uint8", (1, 1, 1))
    plans = [
        Plan(source, "f", (2, 2, 2), (1, 1, 1)),
        Plan(source, "g", (2, 2, 2), (1, 1, 1)),
        Plan(source, "f", (2, 2, 3), (1, 1, 1)),
        Plan(source, "f", (2, 2, 2), (1, 1, 2)),
        Plan(dataclasses.replace(source, dtype="int16"), "f", (2, 2, 2), (1, 1, 1)),
    ]
    first = [plan.tiles[0].key for plan in plans]
    assert plans[0] == Plan(source, "f", (2, 2, 2), (1, 1, 1))
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
