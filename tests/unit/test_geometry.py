"""Boxes of voxels and the size of a voxel: cases checked by hand, and properties of any box."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxmill.geometry import Box, VoxelSize
from voxmill.runtime.errors import VoxmillError

corners = st.tuples(*[st.integers(-20, 20)] * 3)
shapes = st.tuples(*[st.integers(0, 9)] * 3)
margins = st.tuples(*[st.integers(0, 6)] * 3)
boxes = st.builds(lambda start, shape: Box.from_shape(shape, start), corners, shapes)
lengths = st.floats(1e-3, 1e3)
sizes = st.builds(VoxelSize, lengths, lengths, lengths)


def voxels_of(box):
    """All voxels of a box, one after the other."""
    return {
        (z, y, x)
        for z in range(box.start[0], box.stop[0])
        for y in range(box.start[1], box.stop[1])
        for x in range(box.start[2], box.stop[2])
    }


@given(boxes)
def test_a_box_is_its_voxels(box):
    voxels = voxels_of(box)
    assert len(voxels) == box.size == np.prod(box.shape)
    moved = box.relative_to(box.start)
    assert moved == Box.from_shape(box.shape)
    assert np.zeros(box.shape)[moved.slices].shape == box.shape
    assert (Box(*box), Box(**dataclasses.asdict(box))) == (box, box)
    assert Box(*json.loads(json.dumps(box.to_lists()))) == box


@given(boxes, boxes)
def test_the_clipped_box_holds_the_common_voxels(one, other):
    common = voxels_of(one) & voxels_of(other)
    assert voxels_of(one.clip(other)) == voxels_of(other.clip(one)) == common
    assert one.overlaps(other) == bool(common)


@given(boxes, margins)
def test_growing_adds_the_margin_on_both_sides_and_can_be_undone(box, by):
    grown = box.grow(by)
    assert grown.shape == tuple(n + 2 * m for n, m in zip(box.shape, by, strict=True))
    assert grown.grow([-m for m in by]) == box
    assert box.grow(by, within=box) == box
    assert box.grow(2) == box.grow((2, 2, 2))


@given(boxes, corners)
def test_coordinates_go_to_a_window_and_back(box, origin):
    assert box.relative_to(origin).shifted_by(origin) == box
    assert box.relative_to(origin).shape == box.shape


@given(boxes, st.tuples(*[st.integers(1, 12)] * 3))
def test_blocks_partition_the_box(box, edges):
    blocks = box.blocks(edges)
    assert sum(block.size for block in blocks) == box.size
    assert set().union(*map(voxels_of, blocks)) == voxels_of(box)
    assert all(n <= e for block in blocks for n, e in zip(block.shape, edges, strict=True))
    assert [block.start for block in blocks] == sorted(block.start for block in blocks)


@given(boxes, st.tuples(*[st.integers(1, 5)] * 3))
def test_parts_partition_the_box_evenly(box, counts):
    parts = box.split(counts)
    assert len(parts) == np.prod(counts)
    assert sum(part.size for part in parts) == box.size
    assert set().union(*map(voxels_of, parts)) == voxels_of(box)
    for axis in range(3):
        edges = {part.shape[axis] for part in parts}
        assert max(edges) - min(edges) <= 1


@given(boxes, st.lists(st.tuples(*[st.floats(-30, 30)] * 3), min_size=1, max_size=20), sizes)
def test_a_point_is_in_the_box_that_holds_its_nearest_voxel(box, points, size):
    points = np.array(points)
    inside = box.contains(points)
    nearest = [tuple(int(v) for v in np.ceil(p - 0.5)) for p in points]
    halves = (points - 0.5 == np.floor(points)).any(axis=1)
    for k in np.flatnonzero(~halves):
        assert inside[k] == (nearest[k] in voxels_of(box))
    if box.size:
        assert (box.distance_um(points, size)[inside] == 0).all()
        assert (box.distance_um(points, size) >= 0).all()


def test_a_point_between_two_voxels_belongs_to_the_upper_one():
    points = np.array([[0, 0, -0.5], [0, 0, 1.49], [0, 0, 1.5]])
    assert Box((0, 0, 0), (1, 1, 2)).contains(points).tolist() == [True, True, False]
    assert Box((0, 0, 2), (1, 1, 3)).contains(points).tolist() == [False, False, True]
    assert Box((0, 0, 0), (1, 1, 2)).contains(np.zeros((0, 3))).tolist() == []


def test_distance_to_the_faces_by_hand():
    box = Box((0, 0, 10), (20, 20, 30))
    points = np.array([[5, 5, 10], [5, 5, 9.5], [5, 5, 8.5], [-3.5, 5, 33.5]])
    np.testing.assert_allclose(box.distance_um(points, VoxelSize(1, 1, 1)), [0, 0, 1, 5])
    assert box.distance_um(points[2:3], VoxelSize(1, 1, 4))[0] == 4


@given(boxes.filter(lambda box: box.size and min(box.start) >= 0))
def test_a_region_is_read_as_it_is_written(box):
    assert Box.parse(str(box), box.stop) == box


def test_a_clipped_box_beside_the_other_is_empty():
    assert Box((0, 0, 0), (2, 2, 2)).clip(Box((5, 0, 0), (6, 2, 2))).size == 0


@pytest.mark.parametrize(
    ("start", "stop", "message"),
    [
        ((0, 0, 0), (1, -1, 1), r"nowhere below the start \(0, 0, 0\) .* found \(1, -1, 1\)"),
        ((0, 0), (1, 1, 1), r"expected start as three whole numbers \(z, y, x\), found \(0, 0\)"),
        ((0, 0, 0), (1, 1, 1.5), r"expected stop as three whole numbers .* found \(1, 1, 1.5\)"),
    ],
)
def test_impossible_boxes_are_refused(start, stop, message):
    with pytest.raises(VoxmillError, match=message):
        Box(start, stop)


def test_boxes_take_the_integers_of_arrays():
    box = Box(np.array([0, 1, 2]), np.array([3, 4, 5]))
    assert box == Box((0, 1, 2), (3, 4, 5))
    assert all(type(value) is int for corner in box for value in corner)


@given(sizes, st.lists(st.tuples(*[st.floats(-100, 100)] * 3), max_size=5))
def test_micrometres_and_back(size, points):
    points = np.array(points).reshape(-1, 3)
    np.testing.assert_allclose(size.to_vox(size.to_um(points)), points, atol=1e-12)
    np.testing.assert_array_equal(size.to_um(np.eye(3)).sum(axis=0), list(size))
    assert size.volume_um3 == pytest.approx(size.z * size.y * size.x)
    assert VoxelSize.of(size) is size and VoxelSize.of(size.array) == size


@pytest.mark.parametrize(
    "values", [(1, 1), (1, 1, 0), (1, -1, 1), (1, 1, np.inf), (1, 1, np.nan), "abc", None, 3]
)
def test_impossible_voxel_sizes_are_refused(values):
    with pytest.raises(VoxmillError, match="voxel_size_um: expected three lengths above 0"):
        VoxelSize.of(values)


def test_the_array_of_a_voxel_size_can_not_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        VoxelSize(1, 1, 1).array[0] = 2
