"""The image of labels and its pyramid, made by its jobs, in readers and validators of others."""

import logging

import numpy as np
import pytest

from tests.unit.test_foreign_readers import SIZE_UM
from voxmill.cells.colours import MOST_LISTED, colour_of, listed_colours
from voxmill.cells.finish_labels import finish_labels
from voxmill.cells.label_slab import STORAGE, label_slab
from voxmill.engine.build import compiler
from voxmill.runtime.checked import read_checked_json, write_checked_json
from voxmill.runtime.errors import VoxmillError
from voxmill.tiles.build_level import build_level
from voxmill.tiles.plan import Plan, PlannedVolume, write_plan
from voxmill.tiles.predicted import PlannedImage
from voxmill.volumes.multiscale import write_image
from voxmill.volumes.pyramid import reduce_mode

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")

SHAPE = (9, 40, 530)
PLACES = [(2, 8, 10), (4, 20, 255), (4, 20, 262), (8, 30, 500)]  # two on both sides of a seam
ROWS = {0: ["z0000", "z0004", "z0008"], 1: [0, 1, 2], 2: [0, 1]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A probability of four balls, their cells, and labels of three levels made by their jobs."""
    folder = tmp_path_factory.mktemp("labels")
    plan = Plan(PlannedVolume(SHAPE, "uint16", SIZE_UM), "f", (4, 40, 256), (0, 0, 0))
    write_plan(folder / "plan.json", plan)
    balls = np.zeros(SHAPE, bool)
    for place in PLACES:
        away = np.indices(SHAPE).transpose(1, 2, 3, 0) - place
        balls |= ((away * SIZE_UM) ** 2).sum(axis=-1) < 36
    path = folder / "probability.ome.zarr"
    image = PlannedImage.planned(path, plan, {"dtype": "uint8", "compression": "zstd"})
    for row in range(3):
        for index in image.arrays[0].indices(row):
            box = image.arrays[0].box(index)
            image.arrays[0].write_shard(index, np.uint8(255 * balls[box.slices]))
    window = {"min": 0, "max": 255, "start": 0, "end": 255}
    channel = {"label": "probability", "window": window}
    write_image(path, image.arrays[:1], image.levels[:1], SIZE_UM, "n", channel, "mean", {})
    rows = [f"{k},{z},{y},{x},1\n" for k, (z, y, x) in enumerate(PLACES, start=1)]
    (folder / "cells.csv").write_text("id,z_vox,y_vox,x_vox,score\n" + "".join(rows))
    for slab in ROWS[0]:
        label_slab.__wrapped__(
            plan_path=folder / "plan.json", cells_path=folder / "cells.csv", source=None,
            foreground_path=path / "zarr.json", image_path=str(folder / "labels.ome.zarr"),
            slab=slab, settings={"largest_radius_um": 12.0}, output_path=listed(folder, 0, slab),
        )  # fmt: skip
    for level in (1, 2):
        for row in ROWS[level]:
            build(folder, level, row)
    finish(folder)
    return folder


def listed(folder, level, row):
    return folder / f"{level}_{row}.json"


def build(folder, level, row):
    step = 1 if level == 1 else 2
    below = ROWS[level - 1][row * step : (row + 1) * step]
    build_level.__wrapped__(
        plan_path=folder / "plan.json", image_path=folder / "labels.ome.zarr", storage=STORAGE,
        manifest_paths=[listed(folder, level - 1, each) for each in below], level=level, row=row,
        output_path=listed(folder, level, row), how="mode",
    )  # fmt: skip


def finish(folder, rows=ROWS):
    finish_labels.__wrapped__(
        plan_path=folder / "plan.json", cells_path=folder / "cells.csv",
        manifest_paths=[listed(folder, level, row) for level in rows for row in rows[level]],
        image_path=str(folder / "labels.ome.zarr"), threads=2,
        probability_path=str(folder / "probability.ome.zarr/zarr.json"),
    )  # fmt: skip


def levels_of(folder):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(folder / "labels.ome.zarr", mode="r")
    return [group[str(level)][:] for level in range(3)]


def test_a_level_has_the_most_frequent_label_below(folder):
    finest, half, quarter = levels_of(folder)
    assert set(np.unique(finest)) == {0, 1, 2, 3, 4}
    assert len(np.unique(finest[:, :, 256:270])) == 3, "the two cells at the seam"
    np.testing.assert_array_equal(half, reduce_mode(finest, (1, 2, 2)))
    np.testing.assert_array_equal(quarter, reduce_mode(half, (2, 2, 2)))


def test_ome_zarr_models_finds_labels_valid_where_ome_zarr_asks_for_them(folder):
    models = pytest.importorskip("ome_zarr_models.v05")
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(folder / "probability.ome.zarr/labels", mode="r")
    assert models.Labels.from_zarr(group).attributes.ome.labels == ["cells"]
    (colour, *_) = ome = models.ImageLabel.from_zarr(
        group["cells"]
    ).attributes.ome.image_label.colors
    assert [each.label_value for each in ome] == [1, 2, 3, 4]
    assert tuple(colour.rgba) == (*colour_of(1), 255)
    models.ImageLabel.from_zarr(zarr.open_group(folder / "labels.ome.zarr", mode="r"))


def test_napari_shows_labels_on_the_probability(folder):
    plugin = pytest.importorskip("napari_ome_zarr")
    path = str(folder / "probability.ome.zarr")
    image, (levels, settings, kind) = plugin.napari_get_reader(path)(path)
    assert (image[2], kind) == ("image", "labels")
    for found, expected in zip(levels, levels_of(folder), strict=True):
        np.testing.assert_array_equal(np.asarray(found), expected)
    assert tuple(settings["scale"]) == tuple(image[1]["scale"]) == SIZE_UM
    layers = pytest.importorskip("napari.layers")
    layer = layers.Labels(levels, **{k: v for k, v in settings.items() if k != "visible"})
    shown = np.round(255 * layer.get_color(3))
    assert shown[:3].tolist() == list(colour_of(3))


def test_ome_zarr_finds_labels_and_the_image_that_they_are_of(folder, caplog):
    parse_url = pytest.importorskip("ome_zarr.io").parse_url
    reader = pytest.importorskip("ome_zarr.reader").Reader
    with caplog.at_level(logging.WARNING):
        nodes = list(reader(parse_url(folder / "probability.ome.zarr"))())
    assert "no parent found" not in caplog.text

    labels = next(node for node in nodes if node.zarr.basename() == "cells")
    np.testing.assert_array_equal(np.asarray(labels.data[0]), levels_of(folder)[0])
    assert np.allclose(labels.metadata["color"][2][:3], np.array(colour_of(2)) / 255)


def test_colours_are_listed_of_all_cells_or_of_none():
    """napari shows none of the labels that a list leaves out."""
    assert len(listed_colours(range(1, MOST_LISTED + 1))) == MOST_LISTED
    assert listed_colours(range(1, MOST_LISTED + 2)) == []
    near = [np.subtract(colour_of(k), colour_of(k + 1)) for k in range(1, 500)]
    assert min(np.abs(each).max() for each in near) > 60


def test_a_row_of_a_level_that_is_in_no_list_is_named(folder):
    with pytest.raises(VoxmillError, match=r"labels.ome.zarr/2: expected 2 shards, .* c/1/0/0"):
        finish(folder, ROWS | {2: [0]})
    content = read_checked_json(listed(folder, 1, 0))
    write_checked_json(listed(folder, 1, 0), content | {"array": "another"})
    with pytest.raises(VoxmillError, match="array: expected"):
        finish(folder)
    build(folder, 1, 0)
    finish(folder)
