"""Stages of layers: their geometry, what they cost, and which way is taken."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxmill.engine.exact import exact_way
from voxmill.errors import VoxmillError
from voxmill.models import ModelCard
from voxmill.networks.settings import MSDNetSettings
from voxmill.stages import make_stages, neighbours, stage_settings
from voxmill.tiling import plan_tiles
from voxmill.ways import Costs, choose_way, evaluated_voxels, fitting_cuts

NET = MSDNetSettings(depth=6, width=2, dilations=(1, 2, 3), inputs=1, outputs=1)
edges = st.integers(1, 20)
shapes = st.tuples(edges, edges, edges)


def map_bytes(settings, box):
    """All maps and the result, four bytes each."""
    return 4 * (settings.maps_before(settings.depth) + settings.outputs) * math.prod(box)


def costs(net=NET, shape=(40, 40, 40), tile=(20, 20, 20), budget=10**12):
    return Costs(net, shape, tile, map_bytes, budget)


def test_stages_of_a_network():
    first, second, last = make_stages(NET, [0, 2, 3, 6])
    assert [(s.first, s.stop, s.halo_vox) for s in (first, second, last)] == [
        (0, 2, 3), (2, 3, 3), (3, 6, 6)
    ]  # fmt: skip
    assert second.name == "layers002-003"
    part = stage_settings(NET, second)
    assert (part.inputs, part.depth, part.dilations, part.outputs) == (5, 1, (3,), 2)
    part = stage_settings(NET, last)
    assert (part.inputs, part.depth, part.dilations, part.outputs) == (7, 3, (1, 2, 3), 1)


@pytest.mark.parametrize("cuts", [[0], [0, 5], [1, 6], [0, 4, 2, 6], [0, 3, 3, 6]])
def test_borders_that_are_none_are_refused(cuts):
    with pytest.raises(VoxmillError, match="expected borders that rise from 0 to 6"):
        make_stages(NET, cuts)


@given(shape=shapes, tile=shapes, halo=st.integers(0, 9), data=st.data())
def test_neighbours_are_the_tiles_that_the_window_meets(shape, tile, halo, data):
    tiles = plan_tiles(shape, tile, (halo,) * 3)
    one = data.draw(st.sampled_from(tiles))
    box = (one.window_start, one.window_stop)
    met = [
        other.core_start
        for other in tiles
        if all(
            a < high and low < b
            for a, b, low, high in zip(other.core_start, other.core_stop, *box, strict=True)
        )
    ]
    assert neighbours(shape, tile, one.core_start, halo) == met


@given(shape=shapes, tile=shapes, halo=st.integers(0, 9), edge=st.integers(1, 20))
def test_evaluated_voxels_are_those_of_the_blocks(shape, tile, halo, edge):
    cuts = tuple(-(-min(t, n) // edge) for t, n in zip(tile, shape, strict=True))
    total = 0
    for one in plan_tiles(shape, tile, (halo,) * 3):
        edges = [
            [a + (b - a) * i // c for i in range(c + 1)]
            for a, b, c in zip(one.core_start, one.core_stop, cuts, strict=True)
        ]
        for part in itertools.product(*(itertools.pairwise(e) for e in edges)):
            if all(a < b for a, b in part):
                total += math.prod(
                    min(b + halo, n) - max(a - halo, 0)
                    for (a, b), n in zip(part, shape, strict=True)
                )
    assert evaluated_voxels(shape, tile, halo, cuts) == total


@given(budget=st.integers(1, 40_000), halo=st.integers(0, 4))
def test_cuts_fit_and_are_no_finer_than_needed(budget, halo):
    shape, tile = (30, 30, 30), (24, 16, 10)
    found = fitting_cuts(shape, tile, halo, math.prod, budget)
    if found is None:
        assert (1 + 2 * halo) ** 3 > budget
        return
    cuts, size = found

    def box(edge):
        return math.prod(min(min(t, edge) + 2 * halo, 30) for t in tile)

    edge = max(edge for edge in range(1, 25) if box(edge) <= budget)
    assert cuts == tuple(-(-t // edge) for t in tile)
    assert size == box(edge) <= budget


@given(
    depth=st.integers(2, 6),
    width=st.integers(1, 3),
    dilations=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    tile=st.integers(8, 40),
    budget=st.integers(10**5, 10**8),
)
def test_the_stages_are_the_cheapest_of_all_cuts(depth, width, dilations, tile, budget):
    net = MSDNetSettings(depth=depth, width=width, dilations=tuple(dilations))
    these = costs(net, (64, 64, 64), (tile,) * 3, budget)
    inner = range(1, depth)
    ways = [
        these.way([0, *cuts, depth])
        for number in inner
        for cuts in itertools.combinations(inner, number)
    ]
    ways = [way for way in ways if way is not None]
    found = these.cheapest_layers()
    if not ways:
        assert found is None
    else:
        assert found.seconds == pytest.approx(min(way.seconds for way in ways))
        assert found.memory_bytes <= budget


def test_one_tile_takes_the_halo_and_many_small_ones_of_a_deep_network_stages():
    deep = MSDNetSettings(depth=100)
    way, reason = choose_way(costs(deep, (64, 64, 64), (64, 64, 64)))
    assert (len(way.stages), way.halo_vox, way.factor) == (1, 550, 1.0)
    assert reason.startswith("the exact halo (exact halo: halo 550 voxels, work factor 1.00")
    way, reason = choose_way(costs(deep, (1024, 1024, 1024), (256, 256, 256)))
    assert len(way.stages) > 1
    assert way.disk_bytes == 4 * way.stages[-1].first * 1024**3
    assert reason.startswith("stages of layers (exact halo: ")


def test_what_does_not_fit_is_not_taken():
    one_tile = ((64, 64, 64), (64, 64, 64))
    halo = costs(NET, *one_tile).way([0, 6])
    # Nearer the end fewer maps are kept beside the result; the whole window is the least halo.
    deep = MSDNetSettings(depth=30)
    budget = 4 * 33 * 64**3 // 2
    _, reason = choose_way(costs(deep, (64, 64, 64), (8, 8, 8), budget))
    assert "exact halo does not fit" in reason
    forced, reason = choose_way(costs(NET, *one_tile), "layers")
    assert forced.seconds > halo.seconds
    assert "as tiles.exact says" in reason
    assert choose_way(costs(NET, *one_tile), "halo")[0] == halo


@pytest.mark.parametrize("wanted", ["auto", "halo", "layers"])
def test_nothing_that_fits_is_an_error(wanted):
    with pytest.raises(VoxmillError, match=r"exact_memory_gb: one voxel .* needs .* GB .*tiles"):
        choose_way(costs(budget=1000), wanted)


def test_stages_where_there_can_be_none():
    single = MSDNetSettings(depth=1)
    way, reason = choose_way(costs(single))
    assert len(way.stages) == 1
    assert "no stages: the network has one layer" in reason
    with pytest.raises(
        VoxmillError, match=r"tiles\.exact: .*found layers, but the network has one"
    ):
        choose_way(costs(single), "layers")


TILES = {"exact": "auto", "exact_memory_gb": 32}
BOXES = ((64, 64, 64), (16, 16, 16))


def test_other_networks_and_flips_keep_the_exact_halo():
    program = ModelCard("p", "exported", {"halo_vox": 7, "bytes_per_voxel": 100})
    way, reason = exact_way(program, *BOXES, TILES, False)
    assert (way.halo_vox, len(way.stages), way.memory_bytes) == (7, 1, 0)
    assert "stages are of MS-D networks, and p is exported" in reason
    with pytest.raises(VoxmillError, match="found layers, but stages are of MS-D networks"):
        exact_way(program, *BOXES, TILES | {"exact": "layers"}, False)
    card = ModelCard("m", "msdnet", {"depth": 30})
    assert len(exact_way(card, *BOXES, TILES | {"exact": "layers"}, False)[0].stages) > 1
    assert "mirror image" in exact_way(card, *BOXES, TILES, True)[1]
    with pytest.raises(VoxmillError, match=r"found layers, but prediction\.flips needs the whole"):
        exact_way(card, *BOXES, TILES | {"exact": "layers"}, True)
