"""Arrays in shards, levels of a pyramid, and stored probabilities."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from voxmill.geometry import Box
from voxmill.runtime.errors import VoxmillError
from voxmill.volumes import open_volume, read_header
from voxmill.volumes.multiscale import level_arrays, write_image
from voxmill.volumes.probability import (
    DTYPES,
    Probabilities,
    rounding,
    to_probability,
    to_stored,
)
from voxmill.volumes.pyramid import Level, pyramid_levels, reduce_mean, reduce_mode, write_row
from voxmill.volumes.shard_files import StoredShard
from voxmill.volumes.sharded import ShardedArray, shard_edges

SIZE_UM = (2.0, 1.0, 0.5)
CHANNEL = {"label": "p", "window": {"min": 0, "max": 255, "start": 0, "end": 255}}


def write_all(array, voxels):
    """Every shard of an array, each on its own."""
    return [
        array.write_shard(index, voxels[array.box(index).slices])
        for row in range(array.shards[0])
        for index in array.indices(row)
    ]


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(*[st.integers(1, 12)] * 3),
    st.tuples(*[st.integers(1, 8)] * 3),
    st.sampled_from([*DTYPES, "uint32"]),
    st.sampled_from(["zstd", "none"]),
)
def test_shards_written_one_by_one_are_an_array_for_zarr(
    tmp_path_factory, shape, core, dtype, compression
):
    folder = tmp_path_factory.mktemp("sharded")
    voxels = (np.random.default_rng(0).random(shape) * 200).astype(dtype)
    voxels[: shape[0] // 2] = 0
    array = ShardedArray.of_cores(folder / "a", shape, dtype, core, compression)
    stored = write_all(array, voxels)
    np.testing.assert_array_equal(array.read(Box.from_shape(shape)), voxels)
    array.write_metadata()
    np.testing.assert_array_equal(zarr.open_array(str(folder / "a"), mode="r")[...], voxels)
    for shard in stored:
        assert Path(array.path, shard.key).exists() != shard.is_empty
        array.verify(shard, "")
    # As zarr would have written it.
    metadata = json.loads(Path(array.path, "zarr.json").read_text())
    assert metadata["chunk_grid"]["configuration"]["chunk_shape"] == list(array.shard_vox)


@given(st.integers(1, 3000), st.integers(1, 600))
def test_a_shard_is_whole_chunks_and_reaches_no_second_core(edge, core):
    shard, chunk = shard_edges(edge, core)
    assert shard % chunk == 0
    assert shard == core if edge > core else edge <= shard < edge + shard // chunk
    assert edge > core or chunk <= 96


def test_the_same_voxels_give_the_same_bytes_and_zeros_no_file(tmp_path):
    voxels = np.random.default_rng(1).integers(0, 9, (40, 40, 40), np.uint8)
    array = ShardedArray.of_cores(tmp_path, (40, 40, 80), "uint8", (40, 40, 40), "zstd")
    first = array.write_shard((0, 0, 1), voxels)
    assert first == array.write_shard((0, 0, 1), voxels)
    assert array.write_shard((0, 0, 1), voxels * 0) == StoredShard("c/0/0/1", 0, "")
    assert not (tmp_path / "c/0/0/1").exists()


def test_other_voxels_than_a_shards_are_refused(tmp_path):
    array = ShardedArray.of_cores(tmp_path, (4, 4, 6), "uint8", (4, 4, 4), "none")
    with pytest.raises(VoxmillError, match=r"c/0/0/1: expected voxels \(4, 4, 2\) uint8, found"):
        array.write_shard((0, 0, 1), np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(VoxmillError, match=r"found \(4, 4, 2\) uint16"):
        array.write_shard((0, 0, 1), np.zeros((4, 4, 2), np.uint16))


def test_damage_is_named_by_checksum_and_by_readers(tmp_path):
    voxels = np.random.default_rng(1).integers(1, 9, (6, 6, 6), np.uint8)
    array = ShardedArray.of_cores(tmp_path / "0", (6, 6, 6), "uint8", (3, 6, 6), "zstd")
    array.write_metadata()
    stored = write_all(array, voxels)
    victim = tmp_path / "0" / stored[1].key
    whole = victim.read_bytes()
    victim.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(VoxmillError, match=r"c/1/0/0: damaged.*Make it anew"):
        array.verify(stored[1], "Make it anew.")
    with (
        open_volume(read_header(tmp_path / "0")) as volume,
        pytest.raises(VoxmillError, match=r"c/1/0/0: the chunk at \(3, 0, 0\) can.t be decoded"),
    ):
        volume.read_window((0, 0, 0), (6, 6, 6))
    with pytest.raises(VoxmillError, match="0:6, 0:6, 0:6 can't be decoded"):
        array.read(Box.from_shape((6, 6, 6)))
    victim.write_bytes(whole[:-1])
    with pytest.raises(VoxmillError, match=rf"expected a shard of {len(whole)} bytes, found"):
        array.verify(stored[1], "")
    victim.unlink()
    with pytest.raises(VoxmillError, match="c/1/0/0: this shard does not exist"):
        array.verify(stored[1], "")
    # One that must not be there is no less wrong.
    with pytest.raises(VoxmillError, match="expected a shard of 0 bytes"):
        array.verify(StoredShard(stored[0].key, 0, ""), "")


def test_levels_halve_the_finest_axes_until_voxels_are_cubes():
    levels = pyramid_levels((100, 800, 801), (4, 1, 1), most_vox=101)
    assert [level.factors for level in levels] == [(1, 1, 1), (1, 2, 2), (1, 4, 4), (2, 8, 8)]
    assert levels[-1].shape == (50, 100, 101)
    # An axis of one voxel is left, and does not stop the others.
    assert pyramid_levels((1, 300, 300), (0.1, 1, 1))[-1].factors == (1, 2, 2)
    assert len(pyramid_levels((256, 256, 256), (1, 1, 1))) == 1


def expected_mean(voxels, step):
    """The mean of each cell, voxel by voxel."""
    shape = [-(-n // s) for n, s in zip(voxels.shape, step, strict=True)]
    result = np.empty(shape)
    for place in np.ndindex(*shape):
        cell = tuple(slice(i * s, (i + 1) * s) for i, s in zip(place, step, strict=True))
        result[place] = voxels[cell].astype(float).mean()
    return result


@settings(deadline=None)
@given(
    st.tuples(*[st.integers(1, 7)] * 3),
    st.tuples(*[st.integers(1, 2)] * 3),
    st.sampled_from(DTYPES),
)
def test_a_level_is_the_mean_of_the_voxels_below(shape, step, dtype):
    voxels = (np.random.default_rng(2).random(shape) * 250).astype(dtype)
    found = reduce_mean(voxels, step)
    assert found.dtype == voxels.dtype
    expected = expected_mean(voxels, step)
    # Half a unit of the type.
    atol = 0.5 if voxels.dtype.kind == "u" else 250 * np.finfo(dtype).eps
    np.testing.assert_allclose(found, expected, atol=atol, rtol=0)


def test_a_level_of_labels_holds_labels_alone():
    labels = np.array([[[7, 7, 3], [7, 9, 4]], [[9, 9, 4], [9, 9, 3]]], np.uint32)
    np.testing.assert_array_equal(reduce_mode(labels, (2, 2, 2)), [[[9, 3]]])
    np.testing.assert_array_equal(reduce_mode(labels, (1, 1, 1)), labels)


@pytest.mark.parametrize(("how", "reduce"), [("mean", reduce_mean), ("mode", reduce_mode)])
def test_a_pyramid_by_rows_is_that_of_the_whole(tmp_path, how, reduce):
    voxels = np.random.default_rng(3).integers(0, 3, (11, 13, 21), np.uint16)
    levels = pyramid_levels(voxels.shape, SIZE_UM, most_vox=6)
    arrays = level_arrays(tmp_path, levels, "uint16", (4, 4, 6), "zstd")
    write_all(arrays[0], voxels)
    for level, below, array in zip(levels[1:], arrays, arrays[1:], strict=False):
        for row in reversed(range(array.shards[0])):
            assert level.rows_below(row, below.shards[0])
            write_row(below, array, level, row, how)
        voxels = reduce(voxels, level.step)
        np.testing.assert_array_equal(array.read(Box.from_shape(array.shape)), voxels)
    with pytest.raises(VoxmillError, match="expected mean or mode, found 'max'"):
        write_row(arrays[0], arrays[1], levels[1], 0, "max")


def test_rows_of_a_level_need_two_rows_below_where_z_is_halved():
    assert list(Level((3, 1, 1), (2, 1, 1), (2, 1, 1)).rows_below(1, 3)) == [2]
    assert list(Level((3, 1, 1), (1, 2, 2), (1, 2, 2)).rows_below(1, 3)) == [1]


def test_an_image_is_none_before_its_metadata_which_say_places(tmp_path):
    voxels = np.random.default_rng(3).integers(0, 255, (8, 8, 16), np.uint8)
    levels = pyramid_levels(voxels.shape, SIZE_UM, most_vox=8)
    arrays = level_arrays(tmp_path / "i.zarr", levels, "uint8", (8, 8, 8), "zstd")
    write_all(arrays[0], voxels)
    write_row(arrays[0], arrays[1], levels[1], 0, "mean")
    with pytest.raises(VoxmillError, match="expected a Zarr group or array"):
        read_header(tmp_path / "i.zarr")
    write_image(tmp_path / "i.zarr", arrays, levels, SIZE_UM, "n", CHANNEL, "mean", {})
    header = read_header(tmp_path / "i.zarr", level=1)
    assert (header.shape, header.voxel_size_um) == ((8, 8, 8), (2.0, 1.0, 1.0))
    # The centre of the first voxel of a level lies between those of the voxels below.
    assert header.translation_um == (0.0, 0.0, 0.25)


@pytest.mark.parametrize("dtype", DTYPES)
def test_stored_probabilities_are_within_their_rounding(tmp_path, dtype):
    values = np.linspace(0, 1, 4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)
    stored = to_stored(values, dtype)
    assert stored.dtype == dtype
    assert np.abs(to_probability(stored) - values).max() <= rounding(dtype) * (1 + 1e-4)
    np.testing.assert_array_equal(to_stored(to_probability(stored), dtype), stored)
    array = ShardedArray.of_cores(tmp_path / "p.zarr", values.shape, dtype, (4, 4, 4), "zstd")
    write_all(array, stored)
    array.write_metadata()
    for path in (tmp_path / "p.zarr", tmp_path / "p.zarr" / "zarr.json"):
        with Probabilities(path) as opened:
            assert opened.shape == values.shape
            window = opened.read_window((0, 1, 2), (4, 5, 6))
        np.testing.assert_array_equal(window, to_probability(stored)[:, 1:, 2:])
