"""Files of maps: what is written is read box by box, and nothing broken is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxmill import maps
from voxmill.errors import VoxmillError
from voxmill.maps import MapFile, write_maps

SHAPE = (2, 5, 40, 7)
KEYS = {"tile": "t", "stage": "s"}


def content(shape=SHAPE):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.fixture
def path(tmp_path):
    write_maps(tmp_path / "a.maps", content(), KEYS)
    return tmp_path / "a.maps"


def read(file, start, stop):
    into = np.full((file.shape[0], *np.subtract(stop, start)), np.nan, np.float32)
    file.read(start, stop, into)
    return into


def test_bricks_are_verified_where_they_are_read(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # in the second brick, y from 32
    path.write_bytes(data)
    file = MapFile(path, SHAPE, KEYS, "Delete it.")
    np.testing.assert_array_equal(read(file, (0, 0, 0), (5, 32, 7)), content()[:, :, :32])
    with pytest.raises(VoxmillError, match=r"damaged: the brick at \(0, 32, 0\).*Delete it"):
        read(file, (4, 31, 0), (5, 33, 1))


@given(data=st.data(), edges=st.tuples(*[st.integers(1, 9)] * 3), brick=st.integers(1, 9))
def test_boxes_are_those_of_the_array(tmp_path_factory, data, edges, brick):
    path = tmp_path_factory.mktemp("maps") / "b.maps"
    values = content((3, *edges))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maps, "_BRICK_VOX", brick)
        write_maps(path, values, {})
    start = tuple(data.draw(st.integers(0, n - 1)) for n in edges)
    stop = tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(start, edges, strict=True))
    box = (slice(None), *(slice(a, b) for a, b in zip(start, stop, strict=True)))
    np.testing.assert_array_equal(
        read(MapFile(path, values.shape, {}, ""), start, stop), values[box]
    )


def test_the_same_maps_give_the_same_bytes(path, tmp_path):
    write_maps(tmp_path / "again.maps", np.asfortranarray(content()), KEYS)
    assert (tmp_path / "again.maps").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: None, "these maps do not exist. Again."),
        (lambda data: data[:-1], r"expected \d+ bytes, found \d+"),
        (lambda data: data + b"x", r"expected \d+ bytes, found \d+"),
        (lambda data: b"II*\0" + data[4:], r"found a damaged file \(another file\)"),
        (lambda data: data[:5], "expected maps of a stage, found a damaged file"),
        (lambda data: data[:30], "expected maps of a stage, found a damaged file"),
    ],
)
def test_a_broken_file_is_named(path, change, message):
    data = change(path.read_bytes())
    path.unlink() if data is None else path.write_bytes(data)
    with pytest.raises(VoxmillError, match=rf"a\.maps: .*{message}"):
        MapFile(path, SHAPE, KEYS, "Again.")


def test_maps_of_another_tile_or_stage_are_refused(path):
    with pytest.raises(
        VoxmillError, match=r"expected shape \(2, 5, 40, 8\), found \(2, 5, 40, 7\)"
    ):
        MapFile(path, (2, 5, 40, 8), KEYS, "")
    with pytest.raises(VoxmillError, match="expected stage r, found s"):
        MapFile(path, SHAPE, KEYS | {"stage": "r"}, "")
