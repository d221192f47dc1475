"""Tiles and whole volumes as they are written, and what is refused when they are read."""

import json

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from voxmill.runtime.errors import VoxmillError
from voxmill.volumes import (
    check_finite,
    open_volume,
    read_header,
    read_points,
    read_tile,
    tile_pages,
    tiles,
    write_planes,
    write_tile,
)

SHAPE = (4, 5, 6)
DTYPES = ["uint8", "uint16", "int16", "float32"]


def example(dtype="uint16", shape=SHAPE):
    return (np.random.default_rng(0).standard_normal(shape) * 100).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tile_round_trip(tmp_path, dtype):
    array = example(dtype)
    path = tmp_path / "tiles" / "z0000_y0003_x0004.tif"
    write_tile(path, array, (2.0, 0.75, 0.5), (0, 3, 4), {"plan": "abc"})
    found = read_tile(path, SHAPE, dtype, {"plan": "abc"})
    assert found.dtype == array.dtype and found.dtype.isnative
    np.testing.assert_array_equal(found, array)
    np.testing.assert_array_equal(tifffile.imread(path), array)
    np.testing.assert_array_equal(tifffile.memmap(path, mode="r"), array)
    header = read_header(path)
    assert (header.shape, header.voxel_size_um) == (SHAPE, (2.0, 0.75, 0.5))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@settings(max_examples=30, deadline=None)
@given(array=arrays("<f4", st.tuples(*[st.integers(1, 6)] * 3)))
def test_any_tile_round_trips(tmp_path_factory, array):
    """Also NaN, -0.0 and edges of length 1: the bits come back."""
    path = tmp_path_factory.mktemp("tile") / "tile.tif"
    write_tile(path, array)
    assert read_tile(path, array.shape, "float32").tobytes() == array.tobytes()
    with tile_pages(path, array.shape, "float32") as pages:
        found = [pages.read(z).tobytes() for z in reversed(range(len(array)))]
    assert found == [plane.tobytes() for plane in array[::-1]]


def test_tile_of_another_memory_layout(tmp_path):
    array = example("uint16").astype(">u2").transpose(2, 0, 1)
    write_tile(tmp_path / "tile.tif", array)
    np.testing.assert_array_equal(read_tile(tmp_path / "tile.tif", array.shape, "uint16"), array)


def test_same_content_gives_the_same_bytes(tmp_path):
    array = example()
    for name in ("a", "b"):
        write_tile(tmp_path / f"{name}.tif", array, (1, 1, 1), (1, 2, 3), {"plan": "abc"})
        for compression in (None, "zlib"):
            path = tmp_path / f"{name}{compression}.ome.tif"
            write_planes(path, iter(array), SHAPE, "uint16", (3, 2, 1), compression)
    for name in (".tif", "None.ome.tif", "zlib.ome.tif"):
        assert (tmp_path / f"a{name}").read_bytes() == (tmp_path / f"b{name}").read_bytes()


@pytest.mark.parametrize(
    ("expected", "match"),
    [
        (((4, 5, 7), "uint16", {}), r"expected shape \(4, 5, 7\), found \(4, 5, 6\)"),
        ((SHAPE, "float32", {}), "expected dtype float32, found uint16"),
        ((SHAPE, "uint16", {"plan": "new"}), "expected plan new, found old"),
        ((SHAPE, "uint16", {"key": 1}), "expected key 1, found None"),
    ],
)
def test_tile_of_another_plan(tmp_path, expected, match):
    path = tmp_path / "tile.tif"
    write_tile(path, example(), extra={"plan": "old"})
    shape, dtype, extra = expected
    with pytest.raises(VoxmillError, match=f"tile.tif: {match}. Run `snakemake x`"):
        read_tile(path, shape, dtype, extra, remake="Run `snakemake x`.")


def test_broken_tiles(tmp_path):
    path = tmp_path / "tile.tif"
    with pytest.raises(VoxmillError, match=r"this tile does not exist. Make this tile again"):
        read_tile(path, SHAPE, "uint16")
    write_tile(path, example(shape=(4, 50, 60)))
    whole = path.read_bytes()
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[0].dataoffsets[0]
    path.write_bytes(whole[: offset + 100])
    with pytest.raises(VoxmillError, match=r"tile.tif: truncated: expected .* found"):
        read_tile(path, (4, 50, 60), "uint16")
    path.write_bytes(whole[:50])
    with pytest.raises(VoxmillError, match="found a damaged file"):
        read_tile(path, (4, 50, 60), "uint16")
    flipped = bytearray(whole)
    flipped[offset + 2 * 50 * 60 * 2 + 7] ^= 1  # one bit of page 2
    path.write_bytes(flipped)
    with tile_pages(path, (4, 50, 60), "uint16") as pages:
        pages.read(1)
        with pytest.raises(VoxmillError, match="page 2 doesn't match its checksum"):
            pages.read(2)
    tifffile.imwrite(path, example(), photometric="minisblack")
    with pytest.raises(VoxmillError, match="found another TIFF"):
        read_tile(path, SHAPE, "uint16")
    tifffile.imwrite(path, example(), photometric="minisblack", metadata=None, description="[1]")
    with pytest.raises(VoxmillError, match="found another TIFF"):
        read_tile(path, SHAPE, "uint16")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_written_volume_is_calibrated(tmp_path, dtype, compression):
    array = example(dtype)
    path = tmp_path / "probability.ome.tif"
    write_planes(path, iter(array), SHAPE, dtype, (2.0, 0.75, 0.5), compression)
    header = read_header(path)
    assert (header.shape, header.dtype, header.format) == (SHAPE, dtype, "OME-TIFF")
    assert header.voxel_size_um == (2.0, 0.75, 0.5)
    with open_volume(header) as volume:
        np.testing.assert_array_equal(volume.read_window((0, 0, 0), SHAPE), array)
    with tifffile.TiffFile(path) as tif:
        assert tif.series[0].axes == "ZYX"
        x, y = (tif.pages[0].tags[name].value for name in ("XResolution", "YResolution"))
        assert (x[1] / x[0] * 1e4, y[1] / y[0] * 1e4) == pytest.approx((0.5, 0.75))
        np.testing.assert_array_equal(tif.asarray(), array)


@pytest.mark.parametrize("big", [False, True])
def test_bigtiff_only_where_the_size_asks(tmp_path, monkeypatch, big):
    array = example()
    monkeypatch.setattr(tiles, "CLASSIC_LIMIT", array.nbytes + (0 if big else 1))
    write_planes(tmp_path / "volume.tif", iter(array), SHAPE, "uint16")
    write_tile(tmp_path / "tile.tif", array)
    for name in ("volume.tif", "tile.tif"):
        with tifffile.TiffFile(tmp_path / name) as tif:
            assert tif.is_bigtiff == big
    np.testing.assert_array_equal(read_tile(tmp_path / "tile.tif", SHAPE, "uint16"), array)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4, 1), (3, 1, 4), (1, 4, 4), (3, 4, 3)])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_volumes_with_short_edges(tmp_path, shape, compression):
    array = example(shape=shape)
    path = tmp_path / "volume.ome.tif"
    write_planes(path, iter(array), shape, "uint16", None, compression)
    np.testing.assert_array_equal(tifffile.imread(path).reshape(shape), array)


def test_wrong_planes_leave_nothing(tmp_path):
    path = tmp_path / "volume.ome.tif"
    array = example()
    for planes, match in [
        (array[:3], "expected 4 planes, found 3"),
        (np.concatenate([array, array]), "expected 4 planes of .* found plane 4"),
        (array[:, :4], r"expected 4 planes of \(5, 6\) uint16, found plane 0 of \(4, 6\)"),
        (array.astype("float32"), "found plane 0 of .* float32"),
    ]:
        with pytest.raises(VoxmillError, match=match):
            write_planes(path, iter(planes), SHAPE, "uint16")
    with pytest.raises(VoxmillError, match="compression: expected none or zlib, found 'jpeg'"):
        write_planes(path, iter(array), SHAPE, "uint16", compression="jpeg")
    assert not list(tmp_path.iterdir())


def test_check_finite():
    array = np.zeros(SHAPE, "float32")
    check_finite(array, "volume.tif")
    check_finite(array.astype("uint8"), "volume.tif")
    array[1, 2, 3], array[3, 0, 0] = np.nan, -np.inf
    with pytest.raises(VoxmillError, match=r"volume.tif: .*found 2 .*\(z, y, x\) = \(11, 22, 33\)"):
        check_finite(array, "volume.tif", (10, 20, 30))


def test_read_points(tmp_path):
    array = np.zeros((50, 40, 30), "uint8")
    places = np.random.default_rng(0).choice(array.size, 13378, replace=False)
    array.flat[places] = 1
    array.flat[np.setdiff1d(np.arange(array.size), places)[:50]] = 2
    tifffile.imwrite(tmp_path / "truth.tif", array)
    points = read_points(read_header(tmp_path / "truth.tif"))
    assert points.dtype == np.float64
    np.testing.assert_array_equal(points, np.argwhere(array == 1))
    assert read_points(read_header(tmp_path / "truth.tif"), value=3).shape == (0, 3)


def test_metadata_is_json_a_reader_can_use(tmp_path):
    write_tile(tmp_path / "tile.tif", example(), (3, 2, 1), (7, 8, 9), {"plan": "abc"})
    with tifffile.TiffFile(tmp_path / "tile.tif") as tif:
        metadata = json.loads(tif.pages[0].description)
        assert len(tif.pages) == SHAPE[0]
    assert metadata["origin_vox"] == [7, 8, 9]
    assert metadata["extra"] == {"plan": "abc"}
    assert metadata["shape"] == list(SHAPE)
