"""Labels and outlines of cells: against their definition, for every block, and their topology."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import euler_number, label

from voxmill.cells.foreground import read_foreground
from voxmill.cells.labels import (
    label_block,
    least_level,
    margin,
    step_costs,
)
from voxmill.cells.outlines import outline_block, outline_margin
from voxmill.cells.seeds import Seeds, quantised
from voxmill.config.objects import ObjectSettings
from voxmill.engine.build import compiler, loaded
from voxmill.geometry import Box, VoxelSize
from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.blocks import ArrayVolume

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")

UNIT = (1.0, 1.0, 1.0)
FLAT = (10.0, 1.0, 1.0)


def noise(seed, shape, levels=0, sigma=1.0):
    """Smooth noise from 0 to 1; with `levels`, rounded to few values: plateaus and ties."""
    values = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), sigma)
    values = (values - values.min()) / np.ptp(values)
    return (np.round(values * levels) / levels if levels else values).astype(np.float32)


def random_seeds(seed, shape, number):
    places = np.random.default_rng(seed).uniform(0, np.array(shape) - 1, (number, 3))
    return Seeds(places, 10 + 3 * np.arange(number))


def whole_volume(function, values, seeds, given_settings, size=UNIT):
    whole = Box.from_shape(values.shape)
    return function(values, (0, 0, 0), whole, whole, seeds, size, given_settings)


def in_blocks(function, by, values, seeds, given_settings, size, edges):
    """The same in blocks, each read with its margin."""
    whole, out = Box.from_shape(values.shape), np.zeros(values.shape, np.uint32)
    for block in whole.blocks(edges):
        window = block.grow(by(given_settings, VoxelSize.of(size)), within=whole)
        near = seeds.near(window)
        part = values[window.slices]
        out[block.slices] = function(part, window.start, block, whole, near, size, given_settings)
    return out


def by_definition(values, seeds, given_settings, size):
    """Cheapest paths by relaxing every step until nothing changes."""
    lengths, fade, rise, limit = step_costs(given_settings, VoxelSize.of(size))
    levels = quantised(values).astype(int)
    allowed = levels >= least_level(given_settings.threshold)
    best = {}
    starts = np.rint(seeds.places).astype(int)
    for rank, k in enumerate(np.lexsort((seeds.ids, *starts.T[::-1]))):
        best.setdefault(tuple(starts[k]), (0, rank, seeds.ids[k]))
    steps = list(zip(itertools.product((-1, 0, 1), repeat=3), lengths, strict=True))
    front = set(best)
    while front:
        reached = set()
        for place in sorted(front):
            cost, rank, name = best[place]
            for step, length in steps:
                to = tuple(np.add(place, step))
                inside = all(0 <= a < n for a, n in zip(to, values.shape, strict=True))
                if not length or not inside or not allowed[to]:
                    continue
                climb = rise * max(0, levels[to] - levels[place])
                far = cost + length + length * fade[levels[to]] // 256 + climb
                if far <= limit and (far, rank) < best.get(to, (limit + 1, 0, 0)):
                    best[to] = (far, rank, name)
                    reached.add(to)
        front = reached
    out = np.zeros(values.shape, np.uint32)
    for place, (_, _, name) in best.items():
        out[place] = name
    return out


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(0, 12), st.sampled_from([0, 1, 3]),
    st.sampled_from([UNIT, FLAT, (2.5, 1.6, 1.1)]), st.sampled_from([0.0, 3.0]),
    st.sampled_from([0.0, 7.0]),
)  # fmt: skip
def test_labels_are_those_of_the_definition(seed, number, levels, size, fade, rise):
    values = noise(seed, (5, 8, 9), levels)
    seeds = random_seeds(seed, values.shape, number)
    # Seeds elsewhere are moved, which has tests of its own.
    at = tuple(np.rint(seeds.places).astype(int).T)
    values[at] = np.maximum(values[at], 0.5)
    chosen = ObjectSettings(largest_radius_um=6.0, threshold=0.4, fade=fade, rise_um=rise)
    found = whole_volume(label_block, values, seeds, chosen, size)
    np.testing.assert_array_equal(found, by_definition(values, seeds, chosen, size))


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(0, 40), st.sampled_from([0, 1, 4]),
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 30)),
    st.sampled_from([UNIT, FLAT, (0.5, 1.0, 1.7)]), st.floats(1.0, 5.0),
)  # fmt: skip
def test_labels_do_not_depend_on_blocks(seed, number, levels, edges, size, radius):
    values = noise(seed, (7, 9, 48), levels)
    seeds = random_seeds(seed, values.shape, number)
    chosen = ObjectSettings(largest_radius_um=radius, threshold=0.45)
    at_once = whole_volume(label_block, values, seeds, chosen, size)
    assert_same = np.testing.assert_array_equal
    assert_same(at_once, in_blocks(label_block, margin, values, seeds, chosen, size, edges))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(0, 40), st.sampled_from([0, 1, 4]),
    st.tuples(st.integers(3, 9), st.integers(3, 9), st.integers(1, 40)),
    st.sampled_from([UNIT, (4.0, 1.0, 1.0), (0.5, 1.0, 1.0)]),
)  # fmt: skip
def test_outlines_do_not_depend_on_blocks(seed, number, levels, edges, size):
    values = noise(seed, (7, 9, 90), levels)
    seeds = random_seeds(seed, values.shape, number)
    chosen = ObjectSettings(largest_radius_um=3.0, threshold=0.45)
    at_once = whole_volume(outline_block, values, seeds, chosen, size)
    assert_same = np.testing.assert_array_equal
    assert_same(
        at_once, in_blocks(outline_block, outline_margin, values, seeds, chosen, size, edges)
    )


def assert_balls(labels, ids):
    """Each label is one piece without handles and holes, by either convention of neighbours."""
    for name in ids:
        mask = np.pad(labels == name, 1)
        assert label(mask, connectivity=1).max() == 1
        assert label(~mask, connectivity=1).max() == 1
        assert euler_number(mask, connectivity=1) == euler_number(mask, connectivity=3) == 1


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(1, 20), st.sampled_from([0.0, 0.3, 5.0]),
    st.sampled_from([UNIT, FLAT]), st.sampled_from([0.6, 1.2]),
)  # fmt: skip
def test_every_outlined_cell_is_a_ball(seed, number, curvature, size, sigma):
    values = noise(seed, (14, 16, 18), sigma=sigma)
    seeds = random_seeds(seed, values.shape, number)
    chosen = ObjectSettings(largest_radius_um=9.0, threshold=0.4, curvature=curvature)
    found = whole_volume(outline_block, values, seeds, chosen, size)
    raw = whole_volume(label_block, values, seeds, chosen, size)
    assert set(np.unique(found)) == set(np.unique(raw)), "none vanishes"
    assert_balls(found, np.unique(found)[1:])


def ring(thickness):
    """A shell with a hole, and a tunnel through it along z."""
    z, y, x = np.indices((25, 25, 25)) - 12
    far = np.sqrt(z**2 + y**2 + x**2)
    shell = (far < 10) & (far > 10 - thickness)
    return shell, shell & ((y**2 + x**2 > 9) | (z < 0))


def test_a_dark_nucleus_is_filled_and_a_tunnel_is_cut():
    shell, open_shell = ring(4)
    seeds = Seeds([[12, 12, 4]], [7])
    chosen = ObjectSettings(largest_radius_um=40.0)
    filled = whole_volume(outline_block, shell.astype(np.float32), seeds, chosen)
    z, y, x = np.indices(shell.shape) - 12
    inside = z**2 + y**2 + x**2 < 36
    assert (filled[inside] == 7).all()
    cut = whole_volume(outline_block, open_shell.astype(np.float32), seeds, chosen)
    assert_balls(cut, [7])
    raw = whole_volume(label_block, shell.astype(np.float32), seeds, chosen)
    np.testing.assert_array_equal(raw == 7, shell)


def test_a_torus_becomes_a_ball():
    z, y, x = np.indices((9, 31, 31)) - np.array([4, 15, 15]).reshape(3, 1, 1, 1)
    torus = (np.sqrt(y**2 + x**2) - 10) ** 2 + z**2 < 9
    seeds = Seeds([[4, 15, 5]], [1])
    found = whole_volume(
        outline_block, torus.astype(np.float32), seeds, ObjectSettings(largest_radius_um=60)
    )
    assert_balls(found, [1])
    assert (found > 0).sum() > 0.85 * torus.sum()


def test_touching_balls_part_half_way_and_their_noise_is_smoothed():
    z, y, x = np.indices((31, 31, 51)) - np.array([15, 15, 16]).reshape(3, 1, 1, 1)
    balls = np.minimum(z**2 + y**2 + x**2, z**2 + y**2 + (x - 18) ** 2) < 100
    clean = ndimage.gaussian_filter(balls.astype(np.float32), 1.0)
    rough = noise(1, balls.shape, sigma=0.7)
    values = np.clip(clean + rough - rough.mean(), 0, 1)
    seeds = Seeds([[15, 15, 16], [15, 15, 34]], [1, 2])
    chosen = ObjectSettings(largest_radius_um=25.0)
    rough = whole_volume(label_block, values, seeds, chosen)
    smooth = whole_volume(outline_block, values, seeds, chosen)
    truth = balls * np.where(x < 9, 1, 2)
    for k in (1, 2):
        errors = [((found == k) ^ (truth == k)).sum() for found in (rough, smooth)]
        assert errors[1] < 0.8 * errors[0]
        assert errors[1] < 0.06 * (truth == k).sum()


def test_a_seed_outside_moves_to_the_nearest_voxel_that_counts():
    values = np.zeros((1, 1, 12), np.float32)
    values[0, 0, [3, 9]] = 1
    chosen = ObjectSettings(largest_radius_um=6.0)

    def row(places):
        ids = np.arange(1, len(places) + 1)
        return whole_volume(label_block, values, Seeds(places, ids), chosen)[0, 0]

    assert row([[0, 0, 5]]).tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    assert row([[0, 0, 6]]).tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], "the first of two"
    assert row([[0, 0, 3], [0, 0, 4]]).tolist()[3] == 1, "one voxel, one cell: the first"
    chosen = ObjectSettings(largest_radius_um=2.0)
    assert row([[0, 0, 6]]).tolist() == [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0], "none is near"


@pytest.mark.parametrize("function", [label_block, outline_block])
@pytest.mark.parametrize(("value", "share"), [(0.0, 0.0), (1.0, 1.0), (0.49, 0.0)])
def test_a_constant_probability(function, value, share):
    """Nothing but the seeds below the threshold; above it cells share the volume up to a radius."""
    values = np.full((9, 9, 20), value, np.float32)
    seeds = Seeds([[4, 4, 4], [4, 4, 14]], [1, 2])
    found = whole_volume(function, values, seeds, ObjectSettings(largest_radius_um=30.0, fade=0))
    assert set(np.unique(found)) - {0} == {1, 2}
    if share:
        assert abs((found == 1).sum() - (found == 2).sum()) <= 2 * 81
        assert (found > 0).mean() > 0.9
    else:
        assert (found > 0).sum() == 2


def test_tenfold_anisotropy_counts_micrometres():
    values = np.ones((9, 61, 61), np.float32)
    seeds = Seeds([[4, 30, 30]], [1])
    found = whole_volume(label_block, values, seeds, ObjectSettings(largest_radius_um=30), FLAT)
    z, y, x = np.nonzero(found)
    assert (z.min(), z.max(), y.min(), y.max()) == (1, 7, 0, 60)
    far = np.sqrt(100.0 * (z - 4) ** 2 + (y - 30) ** 2 + (x - 30) ** 2)
    assert far.max() <= 30


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_types_of_probabilities(dtype):
    levels = np.arange(256).reshape(4, 8, 8)
    top = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    np.testing.assert_array_equal(quantised((levels / 255 * top).astype(dtype)), levels)


def test_bad_input():
    values = np.zeros((3, 3, 3), np.float32)
    one = Seeds([[1, 1, 1]], [1])
    chosen = ObjectSettings()
    values[0, 0, 0] = np.nan
    with pytest.raises(VoxmillError, match="values from 0 to 1, found nan"):
        whole_volume(label_block, values, one, chosen)
    with pytest.raises(VoxmillError, match="values from 0 to 1, found 2"):
        whole_volume(label_block, np.full((3, 3, 3), 2.0), one, chosen)
    with pytest.raises(VoxmillError, match="found voxels of type int16"):
        whole_volume(label_block, np.zeros((3, 3, 3), np.int16), one, chosen)
    with pytest.raises(VoxmillError, match="expected a window of at least"):
        label_block(
            np.zeros((3, 3, 3)), (0, 0, 0), Box.from_shape((3, 3, 3)), Box.from_shape((9, 9, 9)),
            one, UNIT, chosen,
        )  # fmt: skip
    with pytest.raises(VoxmillError, match="largest_radius_um: expected at most 300 edges"):
        whole_volume(label_block, np.zeros((3, 3, 3)), one, ObjectSettings(largest_radius_um=1e9))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([0, 1], "found 0"),
        ([1, 2**32], "labels are uint32.*found 4294967296"),
        ([1.5, 2], "found 1.5"),
        ([4, 4], "each id once, found 4 2 times"),
        ([1], "a finite place for each of 1 ids, found 2"),
    ],
)
def test_bad_ids(ids, message):
    with pytest.raises(VoxmillError, match=message):
        Seeds([[0, 0, 0], [1, 1, 1]], ids)


def test_ids_up_to_the_largest_of_uint32():
    found = whole_volume(
        label_block, np.ones((1, 1, 4)), Seeds([[0, 0, 1]], [2**32 - 1]), ObjectSettings()
    )
    assert (found == 2**32 - 1).all()
    assert found.dtype == np.uint32


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**27 - 1), st.integers(0, 2**27 - 1))
def test_simple_points_keep_components_and_euler_numbers(a, b):
    """Changing a simple point in 3 x 3 x 3 changes no count of either convention."""
    bits = a & b  # sparser than a uniform mask
    cube = np.array([bits >> k & 1 for k in range(27)], bool).reshape(3, 3, 3)
    off, on = np.pad(cube, 1), np.pad(cube, 1)
    off[2, 2, 2], on[2, 2, 2] = False, True

    def counts(mask):
        return [
            (label(mask, connectivity=c).max(), label(~mask, connectivity=4 - c).max(),
             euler_number(mask, connectivity=c)) for c in (1, 3)
        ]  # fmt: skip

    simple = bool(loaded("objects").voxmill_is_simple(bits))
    same = counts(off) == counts(on)
    assert same or not simple


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.tuples(*[st.integers(3, 12)] * 3), st.sampled_from([UNIT, FLAT]))
def test_foreground_of_the_image_does_not_depend_on_boxes(seed, edges, size):
    image = ArrayVolume((1000 * noise(seed, (14, 20, 25))).astype(np.uint16))
    size = VoxelSize.of(size)
    chosen = ObjectSettings(foreground="image", largest_radius_um=6.0)
    whole = Box.from_shape(image.shape)
    at_once = read_foreground(image, whole, size, chosen)
    for block in whole.blocks(edges):
        part = read_foreground(image, block, size, chosen)
        for some, every in zip(part, at_once, strict=True):
            np.testing.assert_array_equal(some, every[block.slices])


def test_foreground_of_the_image_is_half_way_at_an_edge():
    step = np.where(np.arange(30) < 15, 100, 500) * np.ones((9, 9, 1))
    chosen = ObjectSettings(foreground="image", largest_radius_um=8.0)
    size = VoxelSize(1, 1, 1)
    row = read_foreground(ArrayVolume(step), Box.from_shape(step.shape), size, chosen).levels[4, 4]
    assert row[14] < 128 <= row[15]
    assert row[14] + row[15] == 255
    assert (row[:8] == 0).all(), "no light where nothing stands out"
    with pytest.raises(VoxmillError, match="expected finite grey values"):
        read_foreground(
            ArrayVolume(np.full((3, 3, 3), np.nan)), Box.from_shape((3, 3, 3)), size, chosen
        )


def test_foreground_of_a_probability_is_the_probability():
    values = noise(0, (5, 6, 7))
    box = Box((1, 2, 3), (4, 5, 6))
    found = read_foreground(ArrayVolume(values), box, VoxelSize(1, 1, 1), ObjectSettings())
    np.testing.assert_array_equal(found.levels, quantised(values)[box.slices])
