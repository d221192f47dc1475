"""Parts of volumes, and cells and tiles in the voxels of a resampled volume's file."""

import json

import numpy as np
import pandas as pd
import pytest
import tifffile

from voxmill.cells.find_cells import cells_of_volume, find_cells
from voxmill.cells.table import PLACE, in_file, read_cells, table_of, write_cells
from voxmill.config.baseline import DogSettings
from voxmill.config.cells import CellSettings
from voxmill.evaluation import draw_overview
from voxmill.evaluation.baselines import find_cells_oracle
from voxmill.evaluation.draw_overview import middle_window
from voxmill.evaluation.matches import tile_of_points
from voxmill.evaluation.measure_seams import compare_window
from voxmill.geometry import Box, Resampling, VoxelSize
from voxmill.tiles.own_tiles import own_tiles
from voxmill.tiles.plan import Plan, PlannedVolume, read_plan, write_plan
from voxmill.volumes.blocks import ArrayVolume
from voxmill.volumes.part import PartOfVolume

OWN, MODEL = VoxelSize(1, 0.5, 0.5), VoxelSize(2, 1, 1)
GRID = Resampling((20, 40, 60), OWN, MODEL)
UM = ["z_um", "y_um", "x_um"]


def blobs(shape, places):
    axes = np.indices(shape)
    probability = np.zeros(shape, np.float32)
    for place in places:
        squared = sum((axis - c) ** 2 for axis, c in zip(axes, place, strict=True))
        probability += np.exp(-squared / 4).astype(np.float32)
    return probability


def test_a_part_counts_from_its_first_voxel():
    array = np.arange(60).reshape(3, 4, 5)
    part = PartOfVolume(ArrayVolume(array), Box((1, 0, 2), (3, 4, 5)))
    assert part.shape == (2, 4, 3)
    assert part.read_window((0, 1, 0), (1, 2, 3)).tolist() == [[[27, 28, 29]]]


def test_cells_are_placed_in_the_files_voxels():
    cells = table_of(np.array([[0.0, 0, 0], [1, 2.5, 3]]), np.ones(2), np.ones(2), MODEL)
    placed = in_file(cells, (4, 0, 10), MODEL, GRID)
    # Voxel 4 lies over 8 and 9: its centre is at 8.5.
    assert placed[PLACE].to_numpy().tolist() == [[8.5, 0.5, 20.5], [10.5, 5.5, 26.5]]
    assert placed[UM].to_numpy().tolist() == [[8.5, 0.25, 10.25], [10.5, 2.75, 13.25]]
    assert placed["volume_um3"].tolist() == [1, 1]
    moved = in_file(cells, (4, 0, 10), MODEL)
    assert moved[PLACE].to_numpy().tolist() == [[4, 0, 10], [5, 2.5, 13]]


def test_cells_outside_of_the_box_are_left_out_and_the_rest_numbered_anew():
    places = np.array([[0.0, 0, 0], [1, 2.5, 3], [5, 5, 5]])
    cells = table_of(places, np.ones(3), np.ones(3), MODEL)
    kept = in_file(cells, (0, 0, 0), MODEL, box=Box((1, 0, 0), (6, 9, 9)))
    assert kept["id"].tolist() == [1, 2]
    assert kept[PLACE].to_numpy().tolist() == places[1:].tolist()


def test_a_place_beyond_the_files_last_voxel_belongs_to_it():
    # Three voxels read as two of 1.6: the second reaches from 1.6 to 3.2.
    grid = Resampling((3, 3, 3), VoxelSize(1, 1, 1), VoxelSize(1.6, 1.6, 1.6))
    assert grid.shape == (2, 2, 2)
    cells = table_of(np.full((1, 3), 1.4), np.ones(1), np.ones(1), grid.voxel_size_um)
    places = in_file(cells, (0, 0, 0), grid.voxel_size_um, grid)[PLACE].to_numpy()
    assert Box.from_shape((3, 3, 3)).contains(places).all()


def test_cells_of_a_part_are_those_of_the_whole(tmp_path):
    places = [(5, 6, 7), (10, 25, 8), (10, 8, 45)]
    probability = blobs((20, 40, 60), places)
    tifffile.imwrite(tmp_path / "p.tif", probability, photometric="minisblack")
    settings = {"min_distance_um": 3.0, "threshold": 0.5}
    whole = cells_of_volume(ArrayVolume(probability), CellSettings(**settings), (1, 1, 1))
    find_cells(
        probability_path=str(tmp_path / "p.tif"), output_path=str(tmp_path / "cells.csv"),
        settings=settings, voxel_size_um=(1, 1, 1), part=[(0, 0, 0), (20, 40, 30)],
        box=[(0, 0, 0), (20, 20, 30)],
    )  # fmt: skip
    found = read_cells(tmp_path / "cells.csv")
    near = whole[(whole.x_vox < 30) & (whole.y_vox < 20)]
    assert found[PLACE].to_numpy() == pytest.approx(near[PLACE].to_numpy(), abs=1e-4)
    assert len(found) == 1


def test_the_baseline_of_a_region_counts_what_lies_in_it():
    places = np.array([(5.0, 6, 7), (10, 25, 8), (10, 8, 45)])
    grey = 100 * blobs((20, 40, 60), places)
    settings = DogSettings(4.0, scales=(1.0,))
    region = Box((0, 0, 0), (20, 20, 30))
    points, _, choice = find_cells_oracle(
        ArrayVolume(grey), places, settings, (1, 1, 1), 3.0, region=region
    )
    assert np.round(points).tolist() == [[5, 6, 7]]
    assert choice["f1"] == 1


@pytest.fixture
def resampled_plan(tmp_path):
    volume = PlannedVolume(GRID.shape, "uint16", (2, 1, 1), GRID.own_shape, tuple(OWN))
    write_plan(tmp_path / "plan.json", Plan(volume, "f", (10, 8, 16), (1, 1, 1)))
    return read_plan(tmp_path / "plan.json")


def test_a_plan_keeps_both_grids(resampled_plan, tmp_path):
    assert resampled_plan.volume.resampling == GRID
    content = json.loads((tmp_path / "plan.json").read_text())
    assert content["source"]["own_shape"] == [20, 40, 60]
    plain = Plan(PlannedVolume((10, 20, 30), "uint16", (2, 1, 1)), "f", (10, 8, 16), (1, 1, 1))
    assert plain.volume.resampling is None
    assert "own_shape" not in plain.to_json()["source"]
    # Tiles of the two never mix.
    assert plain.tiles[0].key != resampled_plan.tiles[0].key
    assert own_tiles(plain) == plain.tiles


def test_tiles_partition_the_files_voxels_under_their_own_names(resampled_plan):
    tiles = own_tiles(resampled_plan)
    assert [t.name for t in tiles] == [t.name for t in resampled_plan.tiles]
    assert tiles[-1].name == "z0000_y0016_x0016"
    assert tiles[-1].core == Box((0, 32, 32), (20, 40, 60))
    assert sum(tile.core.size for tile in tiles) == np.prod(GRID.own_shape)
    # The first voxel at or behind a face belongs to the tile behind it.
    assert tile_of_points(np.array([[0, 15.4, 0], [0, 15.6, 0]]), tiles).tolist() == [0, 2]


def test_a_window_at_a_seam_looks_at_what_was_predicted():
    box = Box((0, 4, 4), (8, 12, 12))

    class Stitched(ArrayVolume):
        dtype = "uint16"

    stitched = Stitched(np.zeros((8, 16, 16), np.float32))

    def predict_box(around):
        assert around == Box((0, 2, 2), (8, 14, 14))
        return np.zeros(around.shape, np.float32)

    row = compare_window(
        box, predict_box, lambda cut: np.zeros(cut.shape, np.float32), stitched, CellSettings(),
        (1, 1, 1), within=Box((0, 2, 2), (8, 14, 14)),
    )  # fmt: skip
    assert (row["largest"], row["cells"]) == (0, 0)


def test_the_overview_shows_the_middle_of_the_box():
    assert middle_window(Box((0, 100, 0), (50, 900, 30)), 512) == Box((0, 244, 0), (50, 756, 30))


def test_an_empty_table_stays_one():
    none = table_of(np.zeros((0, 3)), np.zeros(0), np.zeros(0), MODEL)
    assert isinstance(
        in_file(none, (1, 2, 3), MODEL, GRID, Box((0, 0, 0), (1, 1, 1))), pd.DataFrame
    )


@pytest.mark.parametrize("resampled_um", [None, (2.0, 1.0, 1.0)])
def test_marks_of_the_overview_lie_on_their_cells(tmp_path, monkeypatch, resampled_um):
    # The own voxels 10 and 11, 20 and 21, 30 and 31 are one of the model's: 5, 10, 15.
    grey = np.zeros((20, 40, 60), np.uint16)
    grey[10:12, 20:22, 30:32] = 1000
    tifffile.imwrite(tmp_path / "v.tif", grey, photometric="minisblack")
    model = np.zeros((10, 20, 30) if resampled_um else grey.shape, np.float32)
    model[5 if resampled_um else 10, 10 if resampled_um else 20, 15 if resampled_um else 30] = 1
    tifffile.imwrite(tmp_path / "p.tif", model, photometric="minisblack")
    place = (10.5, 20.5, 30.5) if resampled_um else (10, 20, 30)
    write_cells(tmp_path / "c.csv", table_of(np.array([place]), np.ones(1), np.ones(1), OWN))
    figures = []
    monkeypatch.setattr(draw_overview.plt, "close", figures.append)
    volume = {"path": str(tmp_path / "v.tif"), "voxel_size_um": tuple(OWN)}
    draw_overview.draw_overview(
        volume=volume | {"resampled_um": resampled_um}, probability_path=str(tmp_path / "p.tif"),
        cells_path=str(tmp_path / "c.csv"), matches_path=None,
        output_path=str(tmp_path / "o.png"), log_path=str(tmp_path / "log.txt"),
    )  # fmt: skip
    drawn = [panel for panel in figures[0].axes if panel.images]
    assert len(drawn) == 6
    for panel in drawn[3:]:
        (image,), (mark,) = panel.images, panel.collections
        left, right, bottom, top = image.get_extent()
        row, column = np.argwhere(image.get_array() == 1)[0]
        rows, columns = image.get_array().shape
        x = left + (column + 0.5) * (right - left) / columns
        y = top + (row + 0.5) * (bottom - top) / rows
        assert mark.get_offsets()[0].tolist() == pytest.approx((x, y))
