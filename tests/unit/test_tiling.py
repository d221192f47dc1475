"""Geometry of tiles: cores partition any volume, windows hold their halos."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxmill.evaluation.matches import tile_of_points
from voxmill.geometry import Box
from voxmill.runtime.errors import VoxmillError
from voxmill.tiles.batches import MOST_JOBS, Batches, missing, tiles_per_cut, tiles_per_job
from voxmill.tiles.grid import Grid, tile_name
from voxmill.tiles.plan import Plan, PlannedVolume

shapes = st.tuples(*[st.integers(1, 16)] * 3)
tile_shapes = st.tuples(*[st.integers(1, 20)] * 3)
halos = st.tuples(*[st.integers(0, 12)] * 3)


def volume_of(shape):
    return PlannedVolume(shape, "uint16", (1, 1, 1))


def plan_tiles(shape, tile_shape, halo):
    return Plan(volume_of(shape), "f", tile_shape, halo).tiles


def test_the_original_volume_is_thirty_tiles():
    tiles = plan_tiles((2304, 1280, 1024), (768, 256, 512), (48, 48, 48))
    assert len(tiles) == 30
    assert tiles[0].name == "z0000_y0000_x0000"
    assert tiles[-1].name == "z1536_y1024_x0512"
    assert tiles[0].window.stop == (816, 304, 560)


def test_a_volume_smaller_than_a_tile_is_one_tile_without_halo():
    (tile,) = plan_tiles((3, 4, 5), (64, 64, 64), (8, 8, 8))
    assert tuple(tile.core) == ((0, 0, 0), (3, 4, 5))
    assert tuple(tile.window) == ((0, 0, 0), (3, 4, 5))


def test_edges_that_do_not_divide_give_smaller_tiles():
    tiles = plan_tiles((1, 1, 10), (1, 1, 4), (0, 0, 0))
    assert [t.core.shape for t in tiles] == [(1, 1, 4), (1, 1, 4), (1, 1, 2)]


@given(shapes, tile_shapes, halos)
def test_cores_partition_any_shape(shape, tile_shape, halo):
    count = np.zeros(shape, int)
    for tile in plan_tiles(shape, tile_shape, halo):
        count[tile.core.slices] += 1
    assert (count == 1).all()


@given(shapes, tile_shapes, halos)
def test_windows_are_cores_with_halo_clipped_at_the_border(shape, tile_shape, halo):
    volume = np.arange(np.prod(shape)).reshape(shape)
    for tile in plan_tiles(shape, tile_shape, halo):
        window, core = volume[tile.window.slices], volume[tile.core.slices]
        assert window.shape == tile.window.shape
        np.testing.assert_array_equal(window[tile.core_in_window.slices], core)
        for axis in range(3):
            before = tile.core.start[axis] - tile.window.start[axis]
            assert before == min(halo[axis], tile.core.start[axis])
            after = tile.window.stop[axis] - tile.core.stop[axis]
            assert after == min(halo[axis], shape[axis] - tile.core.stop[axis])


@given(shapes, tile_shapes)
def test_every_voxel_has_the_tile_of_its_core_as_owner(shape, tile_shape):
    tiles = Plan(volume_of(shape), "f", tile_shape, (0, 0, 0)).tiles
    points = np.array([t.core.start for t in tiles] + [np.array(t.core.stop) - 1 for t in tiles])
    expected = [*range(len(tiles)), *range(len(tiles))]
    np.testing.assert_array_equal(tile_of_points(points, tiles), expected)


def test_a_point_between_two_voxels_has_one_owner():
    tiles = Plan(volume_of((1, 1, 8)), "f", (1, 1, 4), (0, 0, 0)).tiles
    points = np.array([[0, 0, 3.49], [0, 0, 3.5], [0, 0, -0.5], [0, 0, 7.49]])
    np.testing.assert_array_equal(tile_of_points(points, tiles), [0, 1, 0, 1])


def test_names_are_origins():
    assert tile_name((0, 768, 512)) == "z0000_y0768_x0512"
    assert tile_name((12345, 0, 0)) == "z12345_y0000_x0000"


def test_region():
    assert tuple(Box.parse(" 1:3, 0:4 ,2 : 6", (3, 4, 6))) == ((1, 0, 2), (3, 4, 6))


@pytest.mark.parametrize("text", ["0:1,0:1", "a", "0:1,0:1,0:1.5", "-1:2,0:1,0:1", ""])
def test_a_text_that_is_no_region_is_refused(text):
    with pytest.raises(VoxmillError, match='expected "z0:z1'):
        Box.parse(text, (4, 4, 4))


@pytest.mark.parametrize("text", ["2:2, 0:1, 0:1", "3:2, 0:1, 0:1", "0:5, 0:1, 0:1"])
def test_a_region_that_is_empty_or_outside_is_refused(text):
    with pytest.raises(VoxmillError, match=r"part of the volume of shape \(4, 4, 4\)"):
        Box.parse(text, (4, 4, 4))


@pytest.mark.parametrize("tile_shape", [(0, 1, 1), (1, 1), (1, 1, 1.5), (True, 1, 1)])
def test_a_tile_not_larger_than_zero_is_refused(tile_shape):
    with pytest.raises(VoxmillError, match=r"tiles\.shape_vox: expected three integers >= 1"):
        Grid((4, 4, 4), tile_shape)


def test_a_negative_halo_is_refused():
    with pytest.raises(VoxmillError, match=r"tiles\.halo_vox: expected three integers >= 0"):
        plan_tiles((4, 4, 4), (2, 2, 2), (0, -1, 0))


boxes = st.tuples(*[st.tuples(st.integers(0, 6), st.integers(1, 4))] * 3)


@given(shapes, tile_shapes, boxes)
def test_a_grid_knows_by_arithmetic_what_listing_it_shows(shape, tile_shape, sides):
    starts = [min(a, n - 1) for (a, _), n in zip(sides, shape, strict=True)]
    stops = [min(a + n, m) for a, (_, n), m in zip(starts, sides, shape, strict=True)]
    box = Box(tuple(starts), tuple(stops))
    whole = Grid(shape, tile_shape)
    assert [whole.core(number) for number in range(len(whole))] == (
        Box.from_shape(shape).blocks(tile_shape)
    )
    part = Grid(shape, tile_shape, box)
    cores = [part.core(number) for number in range(len(part))]
    assert cores == [core for core in map(whole.core, range(len(whole))) if core.overlaps(box)]
    assert list(part.names) == [tile_name(core.start) for core in cores]
    assert [part.number(name) for name in part.names] == [*range(len(part))]
    slabs = [part.slab(slab) for slab in part.slabs]
    assert [number for numbers in slabs for number in numbers] == [*range(len(part))]
    assert part.slabs == list(dict.fromkeys(name[:5] for name in part.names))
    for name in set(whole.names) - set(part.names):
        assert part.number(name) is None


@given(shapes, tile_shapes, boxes, st.integers(1, 9))
def test_a_slab_has_no_more_tiles_than_a_job_may_check(shape, tile_shape, sides, most):
    starts = [min(a, n - 1) for (a, _), n in zip(sides, shape, strict=True)]
    stops = [min(a + n, m) for a, (_, n), m in zip(starts, sides, shape, strict=True)]
    whole, part = Grid(shape, tile_shape), Grid(shape, tile_shape, Box(tuple(starts), tuple(stops)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("voxmill.tiles.grid.MOST_IN_SLAB", most)
        slabs = {name: [whole.name(n) for n in whole.slab(name)] for name in whole.slabs}
        of_part = {name: [part.name(n) for n in part.slab(name)] for name in part.slabs}
    assert [name for names in slabs.values() for name in names] == list(whole.names)
    assert [name for names in of_part.values() for name in names] == list(part.names)
    assert all(len(names) <= max(most, whole.counts[2]) for names in slabs.values())
    # A part has the slabs of the whole, with fewer tiles.
    assert all(set(names) <= set(slabs[slab]) for slab, names in of_part.items())


def test_rows_of_a_wide_layer_are_slabs(monkeypatch):
    monkeypatch.setattr("voxmill.tiles.grid.MOST_IN_SLAB", 4)
    grid = Grid((8, 12, 8), (4, 4, 4))
    assert grid.slabs == ["z0000_y0000", "z0000_y0008", "z0004_y0000", "z0004_y0008"]
    assert [len(grid.slab(name)) for name in grid.slabs] == [4, 2, 4, 2]
    assert grid.slab("z0000") == range(0)


@pytest.mark.parametrize(
    "name", ["z0000_y0000_x0001", "z0000_y0000_x0008", "z00000_y0000_x0000", "z0_y0_x0", "a", ""]
)
def test_a_grid_has_no_tile_of_another_name(name):
    assert Grid((1, 1, 8), (1, 1, 4)).number(name) is None


@given(shapes, tile_shapes, st.integers(1, 7))
def test_batches_share_out_all_tiles(shape, tile_shape, size):
    grid = Grid(shape, tile_shape)
    batches = Batches(grid, size)
    shared = {name: batches.tiles(name) for name in batches.names}
    assert [tile for tiles in shared.values() for tile in tiles] == list(grid.names)
    assert all(len(tiles) == size for tiles in list(shared.values())[:-1])
    assert all(batches.of_tile(tile) == name for name, tiles in shared.items() for tile in tiles)
    for slab in grid.slabs:
        numbers = grid.slab(slab)
        assert batches.meeting(numbers) == list(
            dict.fromkeys(batches.of_tile(grid.name(number)) for number in numbers)
        )
    assert [batches.tiles(name) for name in set(grid.names) - set(shared)] == (
        [()] * (len(grid) - len(shared))
    )


@given(st.integers(1, 10**6), st.one_of(st.just("auto"), st.integers(1, 200)))
def test_there_are_never_many_jobs_that_cut(tiles, wanted):
    per_job = tiles_per_job(tiles, wanted)
    per_cut = tiles_per_cut(tiles, per_job)
    assert per_cut % per_job == 0
    assert -(-tiles // per_cut) <= MOST_JOBS
    if wanted == "auto":
        assert per_cut == per_job
        assert (per_job == 1) == (tiles <= MOST_JOBS)


def test_the_batches_that_lack_files():
    batches = Batches(Grid((1, 1, 20), (1, 1, 4)), 2)
    present = {f"{tile}.tif" for tile in batches.grid.names} - {"z0000_y0000_x0012.tif"}
    assert missing(batches, present, ".tif") == {"z0000_y0000_x0008": 1}
    assert missing(batches, present, ".json") == dict(zip(batches.names, (2, 2, 1), strict=True))


def test_a_tile_of_another_grid_has_no_batch():
    batches = Batches(Grid((1, 1, 20), (1, 1, 4)), 2)
    with pytest.raises(VoxmillError, match=r"z0_y0_x3: expected one of the 5 tiles from z0000"):
        batches.of_tile("z0_y0_x3")
    assert batches.tiles("z0000_y0000_x0004") == ()
