"""Where tissue is: the rule by hand, the real volumes, masks from files."""

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from voxmill.geometry import Box
from voxmill.runtime.errors import VoxmillError
from voxmill.volumes import read_header
from voxmill.volumes.blocks import ArrayVolume
from voxmill.volumes.grey_blocks import GreyBlocks, measure_blocks
from voxmill.volumes.measure_volume import measure_grey_values
from voxmill.volumes.tissue import Tissue, find_air, find_tissue

EDGE = (16, 16, 16)


def blocks_of(median, spread=10.0):
    """Blocks of given medians; 5 % and 95 % lie `spread` below and above."""
    median = np.asarray(median, np.float32)
    shape = tuple(16 * n for n in median.shape)
    levels = np.stack([median - spread, median, median + spread])
    return GreyBlocks(shape, EDGE, (16.0,) * 3, levels)


def half_air(hole=None):
    """4 x 4 x 8 blocks: air of 100 on the left, tissue of 1000 on the right."""
    median = np.full((4, 4, 8), 1000.0)
    median[..., :4] = 100
    if hole:
        median[hole] = 100
    return blocks_of(median)


def test_the_threshold_by_hand():
    """Brightness above 90 plus noise of 20: air 40, tissue 940; half-way by the logarithm."""
    air = find_air(half_air())
    assert air.ratio == pytest.approx(940 / 40)
    assert air.threshold == pytest.approx(np.sqrt(40 * 940) - 20 + 90)
    assert (air.brightest, air.between, air.is_clear) == (110, 0, True)


def test_air_is_out_and_the_mask_is_a_block_larger():
    tissue, wholly, about = find_tissue(half_air())
    assert tissue.blocks[0, 0].tolist() == [False] * 3 + [True] * 5
    assert wholly[0, 0].tolist() == [False] * 4 + [True] * 4
    assert about["rule"] == "auto"
    assert about["ratio"] == pytest.approx(23.5)
    assert tissue.share() == 5 / 8


def test_a_dark_hole_inside_is_tissue():
    tissue, wholly, _ = find_tissue(half_air(hole=(2, 2, 6)))
    assert tissue.blocks[2, 2, 6]
    assert not wholly[2, 2, 6]


def test_dim_tissue_is_tissue():
    """A layer three times brighter than the rest, and a slow gradient, are no border of tissue."""
    layer = np.full((4, 4, 8), 300.0)
    layer[..., 5:] = 900
    gradient = np.broadcast_to(np.geomspace(100, 2000, 8), (4, 4, 8))
    for median in (layer, gradient):
        tissue, wholly, _ = find_tissue(blocks_of(median, spread=100.0))
        assert tissue.blocks.all() and wholly.all()
    assert find_air(blocks_of(layer, spread=100.0)).ratio < 4
    assert find_air(blocks_of(gradient, spread=100.0)).between > 0.3


def test_black_margins_are_out_and_statistics_are_of_the_tissue(tmp_path):
    rng = np.random.default_rng(0)
    inner = rng.normal(500, 30, (64, 64, 64)).astype(np.uint16)
    array = np.pad(inner, [(0, 32), (32, 0), (32, 32)])
    path = tmp_path / "volume.tif"
    tifffile.imwrite(path, array, photometric="minisblack")
    values = measure_grey_values(read_header(path))
    for percentile in (1, 5, 50, 95, 99):
        found = values.statistics["percentiles"][f"{percentile}"]
        assert found == pytest.approx(np.percentile(inner, percentile), abs=3)
    assert values.statistics["mean"] == pytest.approx(500, abs=1)
    assert not values.tissue.has_tissue(Box((81, 0, 0), (96, 96, 128)))
    assert values.tissue.has_tissue(Box((63, 32, 32), (64, 33, 33)))
    everything = measure_grey_values(read_header(path), tissue="none")
    assert everything.statistics["percentiles"]["5"] == 0
    assert everything.statistics["tissue"] == {"rule": "none", "share": 1.0}


def test_few_blocks_are_all_tissue():
    median = np.array([100.0, 1000.0]).reshape(1, 1, 2)
    assert find_tissue(blocks_of(median))[0].blocks.all()
    assert find_air(blocks_of(np.full((4, 4, 4), 7.0), spread=0.0)) is None


@pytest.mark.parametrize("factor", [1, 4])
def test_a_mask_from_a_file(tmp_path, factor):
    """Also a coarser one: a voxel of the mask stands for `factor` voxels along each axis."""
    rng = np.random.default_rng(0)
    array = rng.integers(100, 200, (32, 32, 64)).astype(np.uint16)
    mask = np.zeros([n // factor for n in array.shape], np.uint8)
    mask[:, :, : 40 // factor] = 255
    tifffile.imwrite(tmp_path / "volume.tif", array, photometric="minisblack")
    tifffile.imwrite(tmp_path / "mask.tif", mask, photometric="minisblack")
    values = measure_grey_values(read_header(tmp_path / "volume.tif"), str(tmp_path / "mask.tif"))
    assert values.tissue.blocks[0, 0].tolist() == [True, True, True, False]
    assert values.statistics["tissue"]["share"] == 0.75
    assert values.statistics["samples"] > 0


@pytest.mark.parametrize(
    ("mask", "match"),
    [
        (np.zeros((8, 16, 16)), r"mask.tif: expected a mask of tissue, found only zeros"),
        (np.ones((8, 17, 16)), r"mask.tif: expected a mask .* at most .*\[8, 16, 16\] voxels"),
    ],
)
def test_masks_that_do_not_fit(tmp_path, mask, match):
    array = np.arange(8 * 16 * 16).reshape(8, 16, 16).astype(np.uint16)
    tifffile.imwrite(tmp_path / "volume.tif", array, photometric="minisblack")
    tifffile.imwrite(tmp_path / "mask.tif", mask.astype(np.uint8), photometric="minisblack")
    with pytest.raises(VoxmillError, match=match):
        measure_grey_values(read_header(tmp_path / "volume.tif"), str(tmp_path / "mask.tif"))


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_shares_of_boxes_equal_those_of_voxels(data):
    edge = data.draw(st.tuples(*[st.integers(1, 5)] * 3))
    shape = data.draw(st.tuples(*[st.integers(1, 12)] * 3))
    grid = [-(-n // e) for n, e in zip(shape, edge, strict=True)]
    mask = np.random.default_rng(data.draw(st.integers(0, 99))).random(grid) < 0.3
    voxels = mask
    for axis in range(3):
        voxels = np.repeat(voxels, edge[axis], axis).take(range(shape[axis]), axis)
    start = [data.draw(st.integers(0, n - 1)) for n in shape]
    stop = [data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)]
    box, tissue = Box(start, stop), Tissue(shape, edge, mask)
    assert tissue.share(box) == pytest.approx(voxels[box.slices].mean())
    assert tissue.has_tissue(box) == voxels[box.slices].any()


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("cfos_753", 0.94, 1), ("cfos_1147", 0.94, 1), ("cfos_695", 0.7, 0.85),
        ("cfos_1008", 1, 1), ("microglia_1874", 1, 1), ("microglia_3941", 1, 1),
        ("microglia_6506", 1, 1), ("microglia_6003", 1, 1), ("microglia_4150", 0.2, 0.4),
        ("microglia_8858", 0.25, 0.5),
    ],
)  # fmt: skip
def test_real_volumes_lose_air_and_no_cell(lightsheet, name, least, most):
    values = tifffile.imread(lightsheet / f"{name}.tif")
    cells = np.loadtxt(lightsheet / f"{name}_centroids.csv", delimiter=",", skiprows=1, ndmin=2)
    tissue, _, _ = find_tissue(measure_blocks(ArrayVolume(values)))
    assert least <= tissue.share() <= most
    at = np.clip(np.rint(cells).astype(int), 0, 199) // 16
    assert tissue.blocks[tuple(at.T)].all()
