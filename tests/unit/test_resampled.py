"""Volumes read at another voxel size: values by hand, places, and independence of windows."""

import dataclasses
import itertools

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from voxmill.geometry import Box, Resampling, VoxelSize
from voxmill.runtime.errors import VoxmillError
from voxmill.volumes import fingerprint, open_volume, read_header, resampled
from voxmill.volumes.header import VolumeHeader
from voxmill.volumes.windows import Windows

EDGES = st.floats(0.2, 4.0)


class InMemory(Windows):
    """An array in place of a file."""

    def __init__(self, array, voxel_size_um):
        super().__init__(
            VolumeHeader("v", "array", array.shape, array.dtype.name, voxel_size_um, "given",
                         None, True, array.shape, "ZYX")
        )  # fmt: skip
        self.array = array

    def _plane(self, z, rows, columns):
        return self.array[z, rows, columns]


def view(array, own_um, new_um):
    source = InMemory(np.asarray(array), own_um)
    return resampled.ResampledWindows(source, resampled.at_voxel_size(source.header, new_um))


def read(array, own_um, new_um):
    windows = view(array, own_um, new_um)
    return windows.read_window((0, 0, 0), windows.shape)


def line(values, own_um, new_um, dtype=np.float32):
    """One row along x; the other axes stay as they are."""
    array = np.array(values, dtype).reshape(1, 1, -1)
    return read(array, (1, 1, own_um), (1, 1, new_um)).ravel().tolist()


def test_a_voxel_twice_as_large_is_the_mean_of_two():
    assert line([1, 3, 10, 20], 1, 2) == [2, 15]


def test_a_part_of_a_voxel_counts_by_its_part():
    # 1.5 voxels each: 0 and half of 1; half of 1 and 2.
    assert line([0, 6, 3], 1, 1.5) == pytest.approx([2, 4])


def test_what_the_last_voxel_lacks_does_not_count():
    # Two new voxels of 3 over five: the last one has voxels 3 and 4 alone.
    assert line([1, 1, 1, 4, 7], 1, 3) == [1, 5.5]
    # Two of 3 over seven: voxel 6 would be less than half of a third one.
    assert line([1, 1, 1, 4, 4, 4, 9], 1, 3) == [1, 4]


def test_smaller_voxels_are_interpolated_and_end_level():
    # Centres at -0.25, 0.25, 0.75 and 1.25 of the file's voxels.
    assert line([0, 8], 1, 0.5) == [0, 2, 6, 8]


def test_whole_numbers_are_rounded_to_the_nearest():
    assert line([1, 2, 3, 3], 1, 2, np.uint8) == [2, 3]
    assert line([65535] * 7, 1, 1.7, np.uint16) == [65535] * 4


def test_the_mean_goes_over_all_axes():
    array = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    assert read(array, (1, 1, 1), (2, 2, 2)).tolist() == [[[3.5]]]


@given(own=st.tuples(EDGES, EDGES, EDGES), new=st.tuples(EDGES, EDGES, EDGES), data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_voxel_has_one_value_whatever_the_window(own, new, data):
    shape = data.draw(st.tuples(*[st.integers(1, 14)] * 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    windows = view(rng.normal(size=shape).astype(np.float32), own, new)
    whole = windows.read_window((0, 0, 0), windows.shape)
    start = [data.draw(st.integers(0, n - 1)) for n in windows.shape]
    stop = [data.draw(st.integers(a + 1, n)) for a, n in zip(start, windows.shape, strict=True)]
    part = windows.read_window(start, stop)
    assert part.tobytes() == whole[Box(tuple(start), tuple(stop)).slices].tobytes()


@pytest.mark.parametrize("limit", [1, 50, 400])
def test_blocks_within_a_window_change_nothing(monkeypatch, limit):
    rng = np.random.default_rng(0)
    array = rng.integers(0, 65535, (9, 11, 13)).astype(np.uint16)
    whole = read(array, (2, 1, 1), (1.3, 1.7, 0.6))
    monkeypatch.setattr(resampled, "_BLOCK_VOXELS", limit)
    assert (read(array, (2, 1, 1), (1.3, 1.7, 0.6)) == whole).all()


@given(own=EDGES, new=EDGES, count=st.integers(1, 40), value=st.integers(0, 65535))
@settings(max_examples=60, deadline=None)
def test_a_level_volume_stays_level(own, new, count, value):
    assert set(line([value] * count, own, new, np.uint16)) == {value}


@given(parts=st.integers(1, 5), count=st.integers(1, 8), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_larger_voxels_keep_the_sum(parts, count, seed):
    values = np.random.default_rng(seed).random(parts * count)
    assert parts * np.sum(line(values, 1, parts)) == pytest.approx(values.sum(), rel=1e-5)


@pytest.mark.parametrize("new_um", [(0.7, 0.7, 0.7), (1.0, 1.0, 1.0), (3.2, 2.4, 2.0)])
def test_a_cell_stays_where_it_is(new_um):
    """Its centre of mass in new voxels, told in the file's, is the place it was put at."""
    own_um, place = (2.0, 1.0, 0.5), np.array([9.3, 20.6, 41.1])
    axes = np.indices((20, 40, 80)) - place[:, None, None, None]
    squared = sum((axis * edge) ** 2 for axis, edge in zip(axes, own_um, strict=True))
    blob = np.exp(-squared / (2 * 2.5**2)).astype(np.float32)
    found = read(blob, own_um, new_um)
    centre = [(found * index).sum() / found.sum() for index in np.indices(found.shape)]
    grid = Resampling(blob.shape, VoxelSize(*own_um), VoxelSize(*new_um))
    assert grid.to_own(centre) == pytest.approx(place, abs=0.03)


@given(own=EDGES, new=EDGES, count=st.integers(1, 200), cut=st.integers(1, 30))
@settings(max_examples=100, deadline=None)
def test_tiles_of_new_voxels_partition_the_files(own, new, count, cut):
    grid = Resampling((count, 1, 1), VoxelSize(own, 1, 1), VoxelSize(new, 1, 1))
    boxes = [grid.own_box(box) for box in Box.from_shape(grid.shape).blocks((cut, 1, 1))]
    assert boxes[0].start[0] == 0
    assert boxes[-1].stop[0] == count
    assert all(a.stop[0] == b.start[0] for a, b in itertools.pairwise(boxes))


@given(own=EDGES, new=EDGES, count=st.integers(1, 200), data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_box_is_covered_and_no_voxel_lies_outside(own, new, count, data):
    grid = Resampling((count, 1, 1), VoxelSize(own, 1, 1), VoxelSize(new, 1, 1))
    start = data.draw(st.integers(0, count - 1))
    stop = data.draw(st.integers(start + 1, count))
    covering = grid.covering(Box((start, 0, 0), (stop, 1, 1)))
    assert 0 <= covering.start[0] < covering.stop[0] <= grid.shape[0]
    factor = grid.factors[0]
    assert covering.start[0] * factor <= start + 1e-6 or covering.stop[0] == grid.shape[0]
    assert covering.stop[0] * factor >= stop - 1e-6 or covering.stop[0] == grid.shape[0]


@given(own=EDGES, new=EDGES, count=st.integers(1, 200))
@settings(max_examples=100, deadline=None)
def test_every_new_centre_lies_in_the_file(own, new, count):
    grid = Resampling((count, 1, 1), VoxelSize(own, 1, 1), VoxelSize(new, 1, 1))
    places = grid.to_own(np.column_stack([np.arange(grid.shape[0]), *np.zeros((2, grid.shape[0]))]))
    assert places[0, 0] >= -0.5
    assert places[-1, 0] < count - 0.5 or grid.shape[0] == 1
    assert grid.from_own(places)[:, 0] == pytest.approx(np.arange(grid.shape[0]))


@pytest.fixture
def path(tmp_path):
    array = np.arange(4 * 6 * 8, dtype=np.uint16).reshape(4, 6, 8)
    tifffile.imwrite(tmp_path / "v.tif", array, photometric="minisblack")
    return tmp_path / "v.tif"


def test_a_file_is_opened_at_another_voxel_size(path):
    header = read_header(path, voxel_size_um=(1, 1, 1), resampled_um=(2, 2, 2))
    assert header.shape == (2, 3, 4)
    assert header.voxel_size_um == (2, 2, 2)
    assert header.own_shape == (4, 6, 8)
    with open_volume(header) as volume:
        # Of planes 0 and 1 (48 apart), rows 0 and 1 (8 apart), columns 0 and 1: 0 + 28.5.
        assert volume.read_window((0, 0, 0), (1, 1, 1)).tolist() == [[[28]]]
        assert [plane.shape for _, plane in volume.planes()] == [(3, 4)] * 2


def test_the_fingerprint_is_that_of_the_file(path):
    own = read_header(path, voxel_size_um=(1, 1, 1))
    assert fingerprint(read_header(path, voxel_size_um=(1, 1, 1), resampled_um=(2, 2, 2))) == (
        fingerprint(own)
    )
    assert resampled.at_voxel_size(own, None) == own
    assert resampled.at_voxel_size(own, (3, 3, 3)).in_own_voxels == dataclasses.replace(
        own, voxel_size_source="resampled from given"
    )


def test_a_volume_without_a_voxel_size_can_not_be_resampled(path):
    with pytest.raises(VoxmillError, match=r"v\.tif: expected a voxel size in the header"):
        read_header(path, resampled_um=(2, 2, 2))


def test_a_window_beyond_the_volume_is_refused(path):
    header = read_header(path, voxel_size_um=(1, 1, 1), resampled_um=(2, 2, 2))
    with open_volume(header) as volume, pytest.raises(VoxmillError, match=r"shape \(2, 3, 4\)"):
        volume.read_window((0, 0, 0), (4, 6, 8))


def test_what_is_not_finite_is_named_in_the_files_voxels():
    array = np.zeros((4, 6, 8), np.float32)
    array[3, 4, 5] = np.nan
    windows = view(array, (1, 1, 1), (2, 2, 2))
    assert not windows.read_window((0, 0, 0), (1, 3, 4)).any()
    with pytest.raises(VoxmillError, match=r"\(z, y, x\) = \(3, 4, 5\)"):
        windows.read_window((0, 0, 0), (2, 3, 4))
