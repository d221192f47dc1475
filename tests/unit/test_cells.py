"""Cells: against a direct reading of the definition, for every block size, at every seam."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import regionprops

from voxmill.cells import find_cells as cells_module
from voxmill.cells.find_cells import (
    METHODS,
    CellSettings,
    cells_of_volume,
    find_cells,
)
from voxmill.cells.maxima import ball
from voxmill.cells.table import COLUMNS, read_cells, write_cells
from voxmill.runtime.errors import VoxmillError
from voxmill.volumes import write_planes

UNIT = (1.0, 1.0, 1.0)
LIGHTSHEET = (5.0, 1.6, 1.6)


class ArrayVolume:
    """A volume in memory that hands out windows as an opened file does."""

    def __init__(self, array):
        self.array, self.shape, self.windows = array, array.shape, []

    def read_window(self, start, stop):
        self.windows.append(tuple(b - a for a, b in zip(start, stop, strict=True)))
        return self.array[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))].copy()


def find(array, voxel_size_um=UNIT, threads=1, **kwargs):
    return cells_of_volume(ArrayVolume(array), CellSettings(**kwargs), voxel_size_um, threads)


def places(table):
    return table[["z_vox", "y_vox", "x_vox"]].to_numpy()


def blobs(shape, centres, sigma_vox=2.0, height=0.9):
    grid = np.indices(shape).reshape(3, -1).T
    out = np.zeros(len(grid))
    for centre in centres:
        squared = (((grid - centre) / sigma_vox) ** 2).sum(axis=1)
        out = np.maximum(out, height * np.exp(-squared / 2))
    return out.reshape(shape).astype(np.float32)


def random_volume(seed, shape=(21, 18, 26), levels=0):
    """Smooth noise in 0..1; with `levels`, rounded to few values: plateaus and ties."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 1.2)
    noise = (noise - noise.min()) / np.ptp(noise)
    return (np.rint(noise * levels) / levels if levels else noise).astype(np.float32)


def maxima_by_definition(array, voxel_size_um, threshold, min_distance_um):
    """Voxels that are maxima by the three rules of `voxmill.cells.maxima`, all pairs compared."""
    voxels = np.argwhere(array >= np.float32(threshold))
    values = array[tuple(voxels.T)]
    squared = (((voxels[:, None] - voxels) * voxel_size_um) ** 2).sum(axis=-1)
    near = squared <= min_distance_um**2 * (1 + 1e-9)
    top = np.array([(values[row] <= value).all() for row, value in zip(near, values, strict=True)])
    kept = [
        voxel
        for k, voxel in enumerate(voxels)
        if top[k] and not (near[k, :k] & top[:k] & (values[:k] == values[k])).any()
    ]
    return np.array(kept).reshape(-1, 3)


@pytest.mark.parametrize("size", [UNIT, LIGHTSHEET])
@pytest.mark.parametrize("levels", [0, 3, 12])
@pytest.mark.parametrize("radius", [1.0, 1.7, 3.2])
def test_maxima_are_those_of_the_definition(size, levels, radius, monkeypatch):
    monkeypatch.setattr(
        "voxmill.cells.maxima._refinement", lambda flat, index, *_: np.zeros((1, 3))
    )
    array = random_volume(5, (14, 13, 15), levels)
    min_distance_um = radius * size[1]
    expected = maxima_by_definition(array, size, 0.4, min_distance_um)
    found = find(array, size, threshold=0.4, min_distance_um=min_distance_um, block_vox=8)
    assert len(expected) > 3
    np.testing.assert_array_equal(places(found), expected)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 99),
    method=st.sampled_from(sorted(METHODS)),
    levels=st.sampled_from([0, 1, 4]),
    smoothing_um=st.sampled_from([0.0, 1.3]),
    size=st.sampled_from([UNIT, (2.0, 0.9, 0.7)]),
    block_vox=st.integers(8, 30),
    threads=st.integers(1, 3),
)
def test_block_size_and_threads_change_no_bit(
    seed, method, levels, smoothing_um, size, block_vox, threads
):
    array = random_volume(seed, levels=levels)
    kwargs = {
        "method": method,
        "threshold": 0.55,
        "min_distance_um": 2.5,
        "smoothing_um": smoothing_um,
    }
    whole = find(array, size, block_vox=64, **kwargs)
    pd.testing.assert_frame_equal(
        find(array, size, threads, block_vox=block_vox, **kwargs), whole, check_exact=True
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 9), st.sampled_from(sorted(METHODS)), st.tuples(*[st.integers(0, 9)] * 3))
def test_a_shifted_volume_gives_shifted_cells(seed, method, shift):
    """An empty border keeps the volume's edge out of it; blocks fall elsewhere on the cells."""
    array = np.pad(random_volume(seed, (12, 12, 12), 4), 6)
    moved = np.pad(array, [(s, 0) for s in shift])
    kwargs = {"method": method, "threshold": 0.6, "min_distance_um": 2.0, "block_vox": 9}
    table, other = find(array, **kwargs), find(moved, **kwargs)
    np.testing.assert_allclose(places(other), places(table) + shift, atol=1e-9)
    np.testing.assert_array_equal(other["score"], table["score"])


@pytest.mark.parametrize("method", sorted(METHODS))
def test_cells_on_face_edge_and_corner_of_blocks_are_found_once(method):
    """Block seams lie at multiples of 16; centroids lie on them, beside and half-way."""
    coordinates = [15.0, 15.5, 16.0]
    centres = [
        *((z, 8.0, 8.0) for z in coordinates),
        *((z, y, 8.0) for z, y in itertools.product(coordinates, repeat=2)),
        *itertools.product(coordinates, repeat=3),
    ]
    for centre in centres:
        array = blobs((32, 32, 32), [centre])
        table = find(array, method=method, threshold=0.4, min_distance_um=4, block_vox=16)
        assert len(table) == 1
        np.testing.assert_allclose(places(table)[0], centre, atol=0.05)


@pytest.mark.parametrize(("size", "radius_um"), [(UNIT, 4), (LIGHTSHEET, 12)])
def test_refined_to_a_fraction_of_a_voxel(size, radius_um):
    rng = np.random.default_rng(0)
    centres = np.stack(np.meshgrid(*[[10, 30]] * 3, indexing="ij"), -1).reshape(-1, 3)
    centres = centres + rng.uniform(-0.5, 0.5, centres.shape)
    table = find(blobs((40, 40, 40), centres, 3.0), size, min_distance_um=radius_um, threshold=0.5)
    order = np.lexsort(centres.T[::-1])
    assert len(table) == 8
    np.testing.assert_allclose(places(table), centres[order], atol=0.12)
    np.testing.assert_allclose(table[["z_um", "y_um", "x_um"]], places(table) * size)


@pytest.mark.parametrize("centre", [(0, 10.3, 9.7), (10.3, 19, 9.7), (9.7, 0, 19)])
def test_refined_at_the_border_of_the_volume(centre):
    table = find(blobs((20, 20, 20), [centre], 3.0), min_distance_um=6, threshold=0.5)
    np.testing.assert_allclose(places(table), [centre], atol=0.1)


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("planes", [1, 2, 3])
def test_volumes_thinner_than_a_ball(planes, method):
    array = blobs((planes, 20, 20), [(planes // 2, 9.8, 10.3)], 3.0)
    table = find(array, method=method, threshold=0.5, min_distance_um=6, smoothing_um=1.0)
    np.testing.assert_allclose(places(table)[:, 1:], [[9.8, 10.3]], atol=0.25)


@pytest.mark.parametrize("size", [UNIT, (2.0, 1.0, 0.7)])
def test_smoothing_is_a_gaussian_to_four_standard_deviations(size):
    array = random_volume(4)
    smooth = ndimage.gaussian_filter(array, 1.5 / np.array(size), mode="nearest", truncate=4)
    table = find(array, size, min_distance_um=2.5, smoothing_um=1.5, threshold=0.3, block_vox=11)
    expected = find(smooth, size, min_distance_um=2.5, threshold=0.3)
    assert len(table) == len(expected) > 5
    np.testing.assert_allclose(table["score"], expected["score"], atol=2e-4)


def test_two_touching_cells_are_two_maxima_and_one_component():
    array = blobs((20, 20, 30), [(10, 10, 11), (10, 10, 18)], 2.5)
    assert len(find(array, threshold=0.3, min_distance_um=4)) == 2
    assert len(find(array, threshold=0.3, method="components")) == 1
    assert len(find(array, threshold=0.3, min_distance_um=8)) == 1


def test_a_saturated_ball_is_one_cell_at_its_centre():
    """All voxels equal: the tie-break keeps one; smoothing brings it to the centre."""
    grid = np.indices((30, 30, 30)) - np.reshape([14, 15, 17], (3, 1, 1, 1))
    array = ((grid**2).sum(axis=0) <= 16).astype(np.float32)
    table = find(array, min_distance_um=8, smoothing_um=2, threshold=0.3, block_vox=10)
    np.testing.assert_allclose(places(table), [[14, 15, 17]], atol=0.05)
    assert len(find(array, min_distance_um=8, block_vox=10)) == 1


@pytest.mark.parametrize("value", [0.0, 0.7, 1.0])
def test_a_constant_volume(value):
    array = np.full((20, 20, 20), value, dtype=np.float32)
    expected = 0 if value < 0.5 else 1
    assert len(find(array, method="components", block_vox=8)) == expected
    # The first voxel comes before all; each other has an equal earlier voxel beside it.
    found = places(find(array, min_distance_um=3, block_vox=8))
    np.testing.assert_array_equal(found, np.zeros((expected, 3)))


def test_components_equal_scikit_image():
    array = random_volume(8)
    table = find(array, LIGHTSHEET, method="components", threshold=0.6, block_vox=8)
    labels, _ = ndimage.label(array >= np.float32(0.6), np.ones((3, 3, 3)))
    regions = sorted(regionprops(labels, array), key=lambda r: r.centroid)
    assert len(regions) > 10
    np.testing.assert_allclose(places(table), [r.centroid for r in regions], rtol=1e-12)
    np.testing.assert_allclose(table["volume_um3"], [r.area * 5 * 1.6 * 1.6 for r in regions])
    np.testing.assert_array_equal(table["score"], [r.intensity_max for r in regions])


def test_a_component_that_winds_through_many_blocks_is_one():
    """A helix of single voxels, each the neighbour of the next over a face, edge or corner."""
    array = np.zeros((40, 24, 24), dtype=np.float32)
    angle = np.linspace(0, 6 * np.pi, 4000)
    line = np.stack([2 + 36 * angle / angle[-1], 12 + 9 * np.sin(angle), 12 + 9 * np.cos(angle)])
    voxels = np.unique(np.rint(line).astype(int), axis=1)
    array[tuple(voxels)] = 1
    table = find(array, method="components", block_vox=8)
    np.testing.assert_allclose(places(table), [voxels.mean(axis=1)])
    assert table["volume_um3"].tolist() == [voxels.shape[1]]


@pytest.mark.parametrize("corner", list(itertools.product([7, 8], repeat=3)))
def test_two_voxels_that_touch_at_a_corner_of_blocks_are_one_component(corner):
    array = np.zeros((16, 16, 16), dtype=np.float32)
    array[corner] = array[tuple(15 - c for c in corner)] = 1
    assert len(find(array, method="components", block_vox=8)) == 1


def test_minimum_volume():
    array = blobs((20, 20, 40), [(10, 10, 10)], 3.0) + blobs((20, 20, 40), [(10, 10, 30)], 1.0)
    for method in METHODS:
        table = find(array, method=method, threshold=0.4, min_distance_um=6)
        assert len(table) == 2
        small, large = sorted(table["volume_um3"])
        kept = find(
            array, method=method, threshold=0.4, min_distance_um=6, min_volume_um3=small + 1
        )
        assert kept["volume_um3"].tolist() == [large]
        assert kept["id"].tolist() == [1]
        equal = {"threshold": 0.4, "min_distance_um": 6, "min_volume_um3": large}
        assert len(find(array, method=method, **equal)) == 1


@pytest.mark.parametrize("block_vox", [8, 64])
def test_less_volume_is_enough_at_the_border(block_vox):
    array = np.zeros((9, 9, 30), dtype=np.float32)
    array[4, 4, :3] = array[4, 4, 10:13] = array[4, 4, 20:26] = array[6:9, 4, 28] = 0.9
    settings = {"method": "components", "min_volume_um3": 6.0, "block_vox": block_vox}
    assert find(array, **settings)["x_vox"].tolist() == [22.5]
    assert find(array, **settings, border_share=0.5)["x_vox"].tolist() == [1, 22.5, 28]
    peaks = np.zeros((15, 15, 30), dtype=np.float32)
    peaks[7, 7, 1] = peaks[7, 7, 15] = 0.9
    maxima = {"method": "maxima", "min_volume_um3": 2.0, "min_distance_um": 4.5}
    assert find(peaks, **maxima).empty
    assert find(peaks, **maxima, border_share=0.5)["x_vox"].tolist() == [1]


def test_minimum_score_lets_a_component_reach_as_far_as_the_threshold():
    array = np.zeros((4, 4, 12), dtype=np.float32)
    array[2, 2, 1:4] = (0.5, 0.875, 0.5)
    array[2, 2, 8:11] = (0.5, 0.75, 0.5)
    both = find(array, method="components", threshold=0.5)
    assert both["score"].tolist() == [0.875, 0.75]
    kept = find(array, method="components", threshold=0.5, min_score=0.875)
    assert kept[["x_vox", "volume_um3", "score"]].to_numpy().tolist() == [[2, 3, 0.875]]
    assert len(find(array, threshold=0.5, min_distance_um=2, min_score=0.8)) == 1


def test_integers_are_fractions_of_their_largest_value():
    array = blobs((16, 16, 16), [(8, 8, 8)])
    as_bytes = np.rint(array * 255).astype(np.uint8)
    table = find(as_bytes, min_distance_um=4)
    assert table["score"].tolist() == pytest.approx([0.9], abs=0.003)


def test_windows_are_blocks_with_a_margin_and_empty_ones_are_not_searched(monkeypatch):
    calls = []
    original = cells_module.local_maxima
    monkeypatch.setattr(
        cells_module, "local_maxima", lambda *a: calls.append(a[1].start) or original(*a)
    )
    volume = ArrayVolume(blobs((64, 32, 32), [(57, 9, 9)]))
    table = cells_of_volume(volume, CellSettings(min_distance_um=2, block_vox=16), UNIT)
    assert len(table) == 1
    assert max(max(window) for window in volume.windows) <= 16 + 2 * 4
    assert calls == [(48, 0, 0)]


def test_ball_of_anisotropic_voxels():
    assert len(ball(1.0, UNIT).offsets) == 7
    assert ball(5.0, LIGHTSHEET).reach == (1, 3, 3)
    assert ball(0.3, (0.1, 0.1, 0.1)).reach == (3, 3, 3)
    assert len(ball(0.5, UNIT, at_least_vox=1).offsets) == 7
    assert ball(1.0, LIGHTSHEET).offsets.tolist() == [[0, 0, 0]]


def test_table_is_written_and_read_back(tmp_path):
    table = find(random_volume(1), LIGHTSHEET, min_distance_um=3)
    assert list(table.columns) == list(COLUMNS)
    assert table["id"].tolist() == list(range(1, len(table) + 1))
    path = tmp_path / "new" / "cells.csv"
    write_cells(path, table)
    back = read_cells(path)
    np.testing.assert_allclose(back.to_numpy(), table.to_numpy(), atol=1e-4)
    np.testing.assert_array_equal(back["score"].astype(np.float32), table["score"])
    first = path.read_bytes()
    write_cells(path, find(random_volume(1), LIGHTSHEET, min_distance_um=3, block_vox=9))
    assert path.read_bytes() == first


def test_no_cells_make_a_table_of_no_rows(tmp_path):
    write_cells(tmp_path / "cells.csv", find(np.zeros((9, 9, 9), np.float32)))
    back = read_cells(tmp_path / "cells.csv")
    assert len(back) == 0
    assert list(back.columns) == list(COLUMNS)


def test_the_job_reads_a_volume_and_writes_the_table(tmp_path):
    array, path = random_volume(1), tmp_path / "probability.tif"
    write_planes(path, array, array.shape, array.dtype, LIGHTSHEET)
    find_cells(
        probability_path=path,
        output_path=tmp_path / "cells.csv",
        settings={"min_distance_um": 3, "block_vox": 8},
        voxel_size_um=list(LIGHTSHEET),
        threads=2,
        log_path=tmp_path / "log.txt",
    )
    expected = find(array, LIGHTSHEET, min_distance_um=3)
    assert len(expected) > 5
    np.testing.assert_allclose(read_cells(tmp_path / "cells.csv"), expected, atol=1e-4)
    assert f"{len(expected)} cells by" in (tmp_path / "log.txt").read_text()


def test_the_job_names_the_volume_whose_probabilities_are_wrong(tmp_path, capsys):
    path = tmp_path / "probability.tif"
    write_planes(path, np.zeros((9, 9, 9), np.int16), (9, 9, 9), np.int16)
    with pytest.raises(SystemExit):
        find_cells(
            probability_path=path,
            output_path=tmp_path / "cells.csv",
            settings={"min_distance_um": 3},
            voxel_size_um=UNIT,
        )
    assert "probability.tif: expected" in capsys.readouterr().err
    assert not (tmp_path / "cells.csv").exists()


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("method", "watershed", r"expected one of maxima, components, found 'watershed'"),
        ("threshold", 0, "expected a number > 0 and <= 1, found 0"),
        ("threshold", 1.5, "<= 1, found 1.5"),
        ("threshold", "high", "found 'high'"),
        ("threshold", True, "found True"),
        ("min_distance_um", 0, "expected a number > 0, found 0"),
        ("min_distance_um", float("nan"), "found nan"),
        ("smoothing_um", -1, "expected a number >= 0, found -1"),
        ("min_volume_um3", -1, "expected a number >= 0, found -1"),
        ("border_share", -0.1, "expected a number from 0 to 1, found -0.1"),
        ("min_score", 1.5, "expected a number from 0 to 1, found 1.5"),
        ("block_vox", 4, "expected an integer >= 8, found 4"),
        ("block_vox", 64.0, "expected an integer >= 8, found 64.0"),
    ],
)
def test_settings_out_of_range(key, value, expected):
    with pytest.raises(VoxmillError, match=rf"cells\.{key}: .*{expected}"):
        CellSettings.from_dict({key: value})


def test_unknown_setting():
    with pytest.raises(VoxmillError, match="cells: unknown key 'treshold'"):
        CellSettings.from_dict({"treshold": 0.5})


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_probability_that_is_not_finite(bad, method):
    array = np.zeros((12, 12, 20), dtype=np.float32)
    array[3, 4, 17] = bad
    with pytest.raises(VoxmillError, match=r"z, y, x = \(3, 4, 17\) is not finite"):
        find(array, method=method, block_vox=8, min_distance_um=2)


def test_impossible_volumes_and_numbers():
    with pytest.raises(VoxmillError, match="3D probability volume, found shape"):
        find(np.zeros((9, 9), np.float32))
    with pytest.raises(VoxmillError, match="expected probabilities, found voxels of type int16"):
        find(np.zeros((9, 9, 9), np.int16))
    with pytest.raises(VoxmillError, match="threads: expected 1 or more, found 0"):
        find(np.zeros((9, 9, 9), np.float32), threads=0)
    with pytest.raises(VoxmillError, match="expected about half a cell diameter"):
        find(np.zeros((9, 9, 9), np.float32), min_distance_um=100)
    with pytest.raises(VoxmillError, match="voxel_size_um: expected three lengths"):
        find(np.zeros((9, 9, 9), np.float32), (1, 0, 1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "this table of cells does not exist"),
        ("", "expected a table of cells"),
        ("id,z,y,x\n1,2,3,4\n", "found no 'z_vox' among"),
        ("id,z_vox,y_vox,x_vox,score\n1,2,3,4,0.5\n2,3,,5,0.5\n", "'y_vox' of data row 2"),
        ("id,z_vox,y_vox,x_vox,score\n1,2,3,four,0.5\n", "'x_vox' of data row 1, found 'four'"),
    ],
)
def test_unreadable_tables(tmp_path, text, expected):
    path = tmp_path / "cells.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(VoxmillError, match=f"cells.csv: .*{expected}"):
        read_cells(path)
