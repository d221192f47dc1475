"""What parts touching objects: targets, the map of cells, and the way from training to labels."""

import dataclasses
import json
from typing import get_args, get_type_hints

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from voxmill.cells.find_cells import cells_of_volume
from voxmill.cells.labels import label_block, margin
from voxmill.cells.outlines import outline_block, outline_margin
from voxmill.cells.seeds import Seeds
from voxmill.cells.table import PLACE
from voxmill.config.base import SettingError
from voxmill.config.cells import CellSettings
from voxmill.config.objects import ObjectSettings
from voxmill.config.training import TrainingSettings
from voxmill.engine.build import compiler
from voxmill.geometry import Box, VoxelSize
from voxmill.networks import models
from voxmill.networks.heads import HEADS, cell_map, check_outputs, parts_objects
from voxmill.runtime.errors import VoxmillError
from voxmill.training.object_targets import TARGETS, depth_um, objects_in
from voxmill.training.train_network import train_network
from voxmill.volumes.blocks import ArrayVolume

UNIT = VoxelSize(1, 1, 1)
# Two objects of 5 voxels that touch, cut by the row's left face.
ROW = np.array([[[1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 0, 0]]])


def balls(edge=24, apart=8.0, radius=5.0):
    """Two balls that touch, as labels."""
    grid = np.indices((edge,) * 3)
    middle = (edge - 1) / 2
    far = [
        np.sqrt(((grid - np.array([middle, middle, x]).reshape(3, 1, 1, 1)) ** 2).sum(axis=0))
        for x in (middle - apart / 2, middle + apart / 2)
    ]
    labels = np.where(far[0] <= far[1], 1, 2)
    return np.where(np.minimum(*far) <= radius, labels, 0)


def test_names_agree():
    offered = get_args(get_type_hints(TrainingSettings)["touching"])
    assert set(TARGETS) == set(HEADS) == set(offered) - {"none"}
    for name in TARGETS:
        chosen = TrainingSettings(cell_diameter_um=4.0, target="mask", touching=name)
        assert chosen.output_names == ("mask", name) and chosen.outputs == 2
        assert chosen.detector["method"] == "maxima"
        three = TrainingSettings(cell_diameter_um=4.0, foreground=True, touching=name)
        assert three.output_names == ("centroid", "foreground", name)
        assert three.network["outputs"] == 3


def test_depth_counts_from_the_middle_of_the_voxel_at_the_border():
    # The face is no border; the neighbour is one, as the background is.
    assert depth_um(ROW, UNIT).tolist() == [
        [[4.5, 3.5, 2.5, 1.5, 0.5, 0.5, 1.5, 2.5, 1.5, 0.5, 0, 0]]
    ]
    assert depth_um(ROW[..., :9], VoxelSize(3, 2, 2))[0, 0, 8] == 7.0
    assert np.isinf(depth_um(ROW[..., :5], UNIT)).all()


def test_targets_of_two_objects_that_touch():
    distance = TARGETS["distance"](ROW, UNIT, 100.0)
    np.testing.assert_allclose(
        distance[0, 0], np.array([4.5, 3.5, 2.5, 1.5, 0.5, 0.9, 2.7, 4.5, 2.7, 0.9, 0, 0]) / 4.5
    )
    # No object counts as deeper than half a diameter.
    assert TARGETS["distance"](ROW, UNIT, 3.0)[0, 0, :4].tolist() == [1, 1, 1, 1]
    centre = TARGETS["centre"](ROW, UNIT, 100.0)[0, 0]
    assert centre[[0, 7]].tolist() == [1, 1] and (centre[10:] == 0).all()
    np.testing.assert_allclose(centre[[6, 8]], np.exp(-0.5 / 1.25**2))
    boundary = TARGETS["boundary"](ROW, UNIT, 100.0)[0, 0]
    assert boundary.tolist() == [0, 0, 0, 1, 1, 1, 1, 0, 1, 1, 0, 0]


def test_a_mask_has_the_objects_that_hang_together_by_faces():
    mask = np.zeros((1, 3, 5), np.uint8)
    mask[0, 0, :2] = mask[0, 1, 2] = mask[0, 1, 4] = 255
    assert objects_in(mask).max() == 3
    labels = np.where(mask > 0, 7, 0)
    labels[0, 0, 0] = 3
    assert objects_in(labels) is labels
    assert (objects_in(np.zeros((1, 1, 1), int)) == 0).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(sorted(TARGETS)), st.integers(0, 20))
def test_a_target_depends_on_a_diameter_around(seed, name, start):
    rng = np.random.default_rng(seed)
    size, diameter = VoxelSize(2, 1, 1), 9.0
    seeds = rng.integers(0, 2, (8, 20, 40)) * rng.integers(0, 200, (8, 20, 40))
    places = np.argwhere(seeds % 37 == 1)[:30]
    labels = np.zeros(seeds.shape, np.int64)
    for number, place in enumerate(places, start=1):
        grid = (np.indices(labels.shape).T - place).T * size.array.reshape(3, 1, 1, 1)
        labels[(grid**2).sum(axis=0) <= rng.uniform(1, 4) ** 2] = number
    whole = TARGETS[name](labels, size, diameter)
    box = Box((2, 4, start), (6, 12, start + 15))
    window = box.grow((5, 9, 9), within=Box.from_shape(labels.shape))
    part = TARGETS[name](labels[window.slices], size, diameter)
    # Objects in the box lie whole in the window: none is larger than the diameter.
    np.testing.assert_allclose(part[box.relative_to(window.start).slices], whole[box.slices])


def test_one_map_of_masks_and_what_parts_objects():
    mask = np.array([0.2, 0.49, 0.5, 1.0, 1.0], np.float32).reshape(1, 1, 5)
    inside = np.array([1.0, 0.9, 0.0, 0.5, 1.0], np.float32).reshape(1, 1, 5)
    expected = np.array([0.2, 0.49, 0.5, 0.75, 1.0], np.float32)
    for names, values in (
        (("mask", "distance"), [mask, inside]),
        (("centroid", "foreground", "centre"), [0 * mask, mask, inside]),
        (("mask", "boundary"), [mask, 1 - inside]),
    ):
        found = cell_map(names, np.stack(values))
        assert found.dtype == np.float32 and parts_objects(names)
        np.testing.assert_allclose(found.ravel(), expected)
    maps = np.stack([inside, mask])
    np.testing.assert_array_equal(cell_map(("centroid", "foreground"), maps), inside)
    assert not parts_objects(("centroid", "foreground"))


@pytest.mark.parametrize(
    ("outputs", "count"), [(("centroid", "distance"), 2), (("mask", "distance"), 3)]
)
def test_outputs_that_no_map_can_be_made_of(outputs, count):
    with pytest.raises(VoxmillError, match=rf"card: outputs: expected a name for each of {count}"):
        check_outputs(outputs, count, "card")
    check_outputs(("centroid",), 2, "card")  # of which only the first is used


def test_what_parts_objects_needs_masks():
    with pytest.raises(SettingError, match="expected foreground: true or target: mask beside"):
        TrainingSettings(cell_diameter_um=4.0, touching="distance")


def smooth(rng, shape, sigma):
    values = ndimage.gaussian_filter(rng.random(shape), sigma)
    return ((values - values.min()) / np.ptp(values)).astype(np.float32)


@pytest.mark.skipif(compiler() is None, reason="no C++ compiler")
@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 10**6),
    st.tuples(st.integers(3, 9), st.integers(3, 9), st.integers(4, 40)),
    st.integers(8, 20), st.sampled_from([UNIT, VoxelSize(3, 1, 1)]),
)  # fmt: skip
def test_cells_and_labels_do_not_depend_on_blocks(seed, edges, block_vox, size):
    """From both maps to labels: seeds of the summits, foreground of the mask."""
    rng = np.random.default_rng(seed)
    maps = np.stack([smooth(rng, (7, 9, 90), 1.5), smooth(rng, (7, 9, 90), 1.0)])
    whole = Box.from_shape(maps.shape[1:])
    # Tile by tile, as a prediction is stored.
    stored = np.zeros(whole.shape, np.float32)
    for tile in whole.blocks(edges):
        stored[tile.slices] = cell_map(("mask", "distance"), maps[:, *tile.slices])
    np.testing.assert_array_equal(stored, cell_map(("mask", "distance"), maps))
    detector = CellSettings(min_distance_um=2.0, threshold=0.6)
    tables = [
        cells_of_volume(ArrayVolume(stored), dataclasses.replace(detector, block_vox=edge), size)
        for edge in (block_vox, 192)
    ]
    assert tables[0].equals(tables[1])
    seeds = Seeds(tables[0][PLACE].to_numpy(float), tables[0]["id"].to_numpy())
    chosen = ObjectSettings(largest_radius_um=3.0)
    for function, by in ((label_block, margin), (outline_block, outline_margin)):
        at_once = function(stored, (0, 0, 0), whole, whole, seeds, size, chosen)
        if function is label_block:  # outlines fill holes
            assert (maps[0][at_once > 0] >= 0.49).all()
        for block in whole.blocks(edges):
            window = block.grow(by(chosen, size), within=whole)
            part = function(
                stored[window.slices], window.start, block, whole, seeds.near(window), size, chosen
            )
            np.testing.assert_array_equal(part, at_once[block.slices])


@pytest.mark.skipif(compiler() is None, reason="no C++ compiler")
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_touching_balls_part_by_each_map(name):
    """Perfect maps give the labels back; the mask alone has one object."""
    labels = balls()
    inside = HEADS[name](TARGETS[name](labels, UNIT, 12.0))
    joined = cell_map(("mask", "distance"), np.stack([(labels > 0) * 1.0, inside]))
    detector = CellSettings(min_distance_um=4.0, threshold=0.7, smoothing_um=0.5)
    table = cells_of_volume(ArrayVolume(joined), detector, UNIT)
    whole = Box.from_shape(labels.shape)
    seeds = Seeds(table[PLACE].to_numpy(float), table["id"].to_numpy())
    assert len(table) == 2
    chosen = ObjectSettings(largest_radius_um=12.0, outlines=False)
    found = label_block(joined, (0, 0, 0), whole, whole, seeds, UNIT, chosen)
    assert ((found > 0) == (labels > 0)).all()
    assert ndimage.label(labels > 0)[1] == 1
    for number in (1, 2):
        own = found[labels == number]
        assert (own == np.bincount(own).argmax()).mean() > 0.95


def test_from_training_to_one_map(tmp_path):
    """The job trains all three outputs; its card and a truth of labels need nothing else."""
    labels = balls()
    rng = np.random.default_rng(0)
    volume = 100 + 300 * (labels > 0) - 120 * (ndimage.maximum_filter(labels, 3) != labels)
    tifffile.imwrite(tmp_path / "v.tif", (volume + rng.normal(0, 10, volume.shape)).astype("u2"))
    tifffile.imwrite(tmp_path / "l.tif", labels.astype(np.uint16))
    settings = {
        "cell_diameter_um": 10.0, "foreground": True, "touching": "distance", "device": "cpu",
        "network": {"depth": 3, "width": 2, "dilations": [1, 2]}, "patch_vox": [12, 12, 12],
        "margin_vox": 1, "steps": 40, "validate_every": 40, "learning_rate": 0.02,
    }  # fmt: skip
    train_network(
        volumes={
            "balls": {
                "path": str(tmp_path / "v.tif"),
                "voxel_size_um": [1, 1, 1],
                "truth": {"path": str(tmp_path / "l.tif"), "kind": "labels"},
                "validation": "0:24, 0:24, 13:24",
            },
        },
        settings=settings, output_path=tmp_path / "n.safetensors", curves_path=tmp_path / "n.csv",
        figure_path=tmp_path / "n.png", checkpoint_path=tmp_path / "n.checkpoint", threads=1,
    )  # fmt: skip
    card = models.read_card(tmp_path / "n.safetensors")
    assert card.outputs == ("centroid", "foreground", "distance")
    assert card.detector["method"] == "maxima"
    path = tmp_path / "n.json"
    content = json.loads(path.read_text()) | {"outputs": ["centroid", "distance", "other"]}
    path.write_text(json.dumps(content))
    with pytest.raises(VoxmillError, match=r"n\.json: outputs: expected a name for each of 3"):
        models.read_card(tmp_path / "n.safetensors")
