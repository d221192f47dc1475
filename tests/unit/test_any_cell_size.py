"""Models for cells of any size: volumes are resampled to one diameter, and lengths follow it."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from voxmill.cells.find_cells import cells_of_volume
from voxmill.cells.table import PLACE
from voxmill.config.cells import CellSettings
from voxmill.config.prediction import PredictionSettings
from voxmill.config.settings import check
from voxmill.config.training import TrainingSettings
from voxmill.evaluation.matching import match_points
from voxmill.geometry import Box, Resampling, VoxelSize
from voxmill.networks import models
from voxmill.networks.models import ModelCard
from voxmill.prediction.volume_predictor import VolumePredictor
from voxmill.runtime.errors import VoxmillError
from voxmill.training.fine_tuning import fine_tuning_settings
from voxmill.training.open_sources import open_sources
from voxmill.training.train_network import train_network
from voxmill.volumes import open_volume, read_header
from voxmill.volumes.blocks import ArrayVolume
from voxmill.volumes.measure_volume import measure_grey_values
from voxmill.workflow.voxel_sizes import counted_size, scaled_detector

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "models" / "cells.safetensors"
SETTINGS = TrainingSettings(
    cell_diameter_um=8.0, cell_diameter_vox=4.0, target="mask", patch_vox=(12, 12, 12),
    margin_vox=1, steps=2, network={"depth": 2}, device="cpu",
)  # fmt: skip
# Two cells of 8 voxels of 1 um, so that a model of 4 voxels reads voxels of 2 um.
PLACES = [(9.5, 9.5, 11.5), (13.5, 21.5, 35.5)]


def balls(radius, shape=(24, 32, 48), places=PLACES, size=(1, 1, 1)):
    axes = np.indices(shape)
    labels = np.zeros(shape, np.uint16)
    for number, place in enumerate(places, start=300):
        squared = sum(((a - c) * s) ** 2 for a, c, s in zip(axes, place, size, strict=True))
        labels[squared <= radius**2] = number
    return labels


def volume_of(folder, **changes):
    labels = balls(4)
    noise = np.random.default_rng(0).integers(0, 20, labels.shape)
    tifffile.imwrite(folder / "v.tif", np.where(labels, 900, 100 + noise).astype(np.uint16))
    tifffile.imwrite(folder / "l.tif", labels)
    volume = {
        "path": str(folder / "v.tif"),
        "voxel_size_um": (1.0, 1.0, 1.0),
        "truth": {"path": str(folder / "l.tif"), "kind": "labels"},
        "cell_diameter_um": 8.0,
        "validation": "0:24, 0:32, 30:48",
    }
    return volume | changes


def test_a_training_volume_is_read_at_the_diameter(tmp_path):
    (source,), record = open_sources("v", volume_of(tmp_path), SETTINGS)
    assert source.volume.shape == source.mask.shape == (12, 16, 24)
    assert source.voxel_size_um == (2.0, 2.0, 2.0)
    assert source.region == Box.from_shape((12, 16, 24))
    assert source.validation == Box((0, 0, 15), (12, 16, 24))
    # Voxel 9.5 of the file lies at (9.5 + 0.5) / 2 - 0.5.
    assert sorted(source.points.tolist()) == [[4.5, 4.5, 5.5], [6.5, 10.5, 17.5]]
    mask = source.mask.read_window((0, 0, 0), (12, 16, 24))
    assert set(np.unique(mask)) == {0, 1}
    # An eighth of the file's voxels, whatever the numbers of the labels.
    assert mask.sum() == pytest.approx((balls(4) > 0).sum() / 8, rel=0.15)
    assert record["cell_diameter_um"] == 8.0


def test_cells_of_another_size_look_the_same(tmp_path):
    """Twice as large in a volume of half the voxel size: the same voxels, lengths and targets."""
    (one,), _ = open_sources("v", volume_of(tmp_path), SETTINGS)
    changes = {"voxel_size_um": (3.0, 3.0, 3.0), "cell_diameter_um": 24.0}
    (other,), _ = open_sources("v", volume_of(tmp_path) | changes, SETTINGS)
    assert other.voxel_size_um == one.voxel_size_um
    assert other.grey.blocks.edge_um == one.grey.blocks.edge_um
    np.testing.assert_array_equal(one.points, other.points)
    whole = Box.from_shape(one.volume.shape)
    np.testing.assert_array_equal(one.volume.read_window(*whole), other.volume.read_window(*whole))


@pytest.mark.parametrize(
    ("settings", "diameter_um"),
    [(SETTINGS, None), (dataclasses.replace(SETTINGS, cell_diameter_vox=None), 8.0)],
)
def test_a_diameter_needs_a_general_model_and_the_reverse(tmp_path, settings, diameter_um):
    with pytest.raises(VoxmillError, match="expected cell_diameter_um for a training with"):
        open_sources("v", volume_of(tmp_path, cell_diameter_um=diameter_um), settings)


@pytest.mark.parametrize(
    ("general", "diameter_um", "message"),
    [
        (True, None, r"volumes\.v\.cell_diameter_um: missing: expected the typical diameter"),
        (False, 8.0, r"volumes\.v\.cell_diameter_um: expected none without settings\.cell_diam"),
    ],
)
def test_the_configuration_says_so_first(tmp_path, general, diameter_um, message):
    volume = {k: v for k, v in volume_of(tmp_path).items() if k != "cell_diameter_um"}
    volume |= {"cell_diameter_um": diameter_um} if diameter_um else {}
    settings = {"cell_diameter_um": 8.0} | ({"cell_diameter_vox": 8.0} if general else {})
    with pytest.raises(VoxmillError, match=message):
        check({"training": {"any": {"volumes": {"v": volume}, "settings": settings}}}, "c")


def test_the_card_of_a_general_model(tmp_path):
    settings = json.loads(json.dumps(dataclasses.asdict(SETTINGS)))
    files = {"output_path": "m.safetensors", "curves_path": "m.csv", "figure_path": "m.png"}
    train_network(
        volumes={"v": volume_of(tmp_path)}, settings=settings, threads=1,
        checkpoint_path=tmp_path / "m.checkpoint", log_path=str(tmp_path / "log.txt"),
        **{key: tmp_path / name for key, name in files.items()},
    )  # fmt: skip
    card = models.read_card(tmp_path / "m.safetensors")
    assert card.voxel_size_um is None
    assert (card.cell_diameter_um, card.cell_diameter_vox) == (8.0, 4.0)
    # Two cells in 24 x 32 x 48 voxels of 1 um, and cells of 8 um as in the settings.
    assert card.seen["density_per_mm3"][0] == pytest.approx(2e9 / (24 * 32 * 48), rel=1e-3)
    # Who starts from it keeps its diameters.
    filled = fine_tuning_settings({}, tmp_path / "m.safetensors")
    assert (filled["cell_diameter_um"], filled["cell_diameter_vox"]) == (8.0, 4.0)


def test_blocks_count_in_the_lengths_of_the_model(tmp_path):
    volume_of(tmp_path)
    header = read_header(tmp_path / "v.tif", voxel_size_um=(1.0, 1.0, 1.0))
    assert measure_grey_values(header).blocks.edge_vox == (16, 16, 16)
    counted = measure_grey_values(header, counted_um=(4.0, 2.0, 2.0)).blocks
    assert (counted.edge_vox, counted.edge_um) == ((4, 8, 8), (16, 16, 16))


READ = VoxelSize(1.5, 1.5, 1.5)


def card(diameter_um, **known):
    return ModelCard("m", "msdnet", {}, cell_diameter_um=diameter_um, **known)


def test_what_a_voxel_counts_as():
    section = {"cell_diameter_um": 12.0}
    # 12 um are 8 voxels, and the card's lengths are for cells of 8 um.
    assert counted_size("v", section, READ, {"a": card(8)}) == (1, 1, 1)
    assert counted_size("v", section, READ, {"a": card(8), "b": card(8.2)}) == (1, 1, 1)
    assert counted_size("v", {}, READ, {"a": card(8)}) is None
    assert counted_size("v", section, READ, {"a": ModelCard("m", "msdnet", {})}) is None
    with pytest.raises(VoxmillError, match=r"v\.networks: the lengths of network a are for cells"):
        counted_size("v", section, READ, {"a": card(8), "b": card(12)})


@pytest.mark.parametrize(("size_um", "diameter_um"), [((2, 1, 1), 10.0), ((3, 3, 3), 24.0)])
def test_the_shipped_general_model_finds_cells_of_any_size(tmp_path, size_um, diameter_um):
    """Bright balls in noise, of 10 and of 24 micrometres, by the settings that a run would take."""
    shape, rng = tuple(round(8 * diameter_um / edge) for edge in size_um), np.random.default_rng(1)
    shares = ((0.3, 0.3, 0.3), (0.6, 0.7, 0.4), (0.5, 0.3, 0.8))
    places = np.array([np.array(shape) * share for share in shares])
    light = 200.0 + 400 * (balls(diameter_um / 2, shape, places, size_um) > 0)
    tifffile.imwrite(tmp_path / "v.tif", rng.poisson(light).astype(np.uint16))
    known, network = models.load_stored(SHIPPED)
    read_um = [diameter_um / known.cell_diameter_vox] * 3
    header = read_header(tmp_path / "v.tif", voxel_size_um=size_um, resampled_um=read_um)
    section = {"cell_diameter_um": diameter_um}
    counted = counted_size("v", section, VoxelSize.of(read_um), {"cells": known})
    grey = measure_grey_values(header, counted_um=counted)
    with open_volume(header) as volume:
        normalise = grey.normaliser(known.normalisation)
        settings = PredictionSettings(device="cpu")
        predictor = VolumePredictor(known, network, volume, normalise, settings, 1)
        probability = predictor.predict(Box.from_shape(header.shape), 0)
    detector = scaled_detector(known.detector, known, diameter_um)
    cells = CellSettings.from_dict(detector | {"threshold": known.threshold})
    found = cells_of_volume(ArrayVolume(probability), cells, read_um)[PLACE].to_numpy()
    found = Resampling(shape, VoxelSize.of(size_um), VoxelSize.of(read_um)).to_own(found)
    assert len(match_points(places, found, diameter_um / 4, size_um)) == len(found) == 3
