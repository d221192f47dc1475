"""The halo that a network needs, and the certificate of a stitched volume."""

import dataclasses
import json

import numpy as np
import pytest
import tifffile

import voxmill.evaluation.measure_seams
from voxmill.cells.find_cells import CellSettings
from voxmill.config.networks import MSDNetSettings
from voxmill.config.objects import ObjectSettings
from voxmill.engine.backends import BACKENDS
from voxmill.evaluation.measure_seams import (
    SeamSettings,
    _labels_of,
    compare_cells,
    measure_seams,
    seam_starts,
    summarise,
)
from voxmill.evaluation.seam_windows import LABEL_COUNTS, compare_labels, sum_labels
from voxmill.geometry import Box, VoxelSize
from voxmill.networks import build, models
from voxmill.prediction import volume_predictor
from voxmill.prediction.box import PredictionSettings, predict, resolve_device
from voxmill.prediction.measure_halo import (
    HaloSettings,
    errors_by_halo,
    measure_halo,
    random_starts,
    richest_boxes,
)
from voxmill.prediction.memory import SHARE, box_bytes
from voxmill.prediction.volume_predictor import VolumePredictor
from voxmill.runtime.errors import VoxmillError
from voxmill.tiles.plan import Plan, PlannedVolume, read_plan
from voxmill.tiles.plan_volume import plan_volume
from voxmill.volumes import fingerprint, open_volume, read_header, write_planes
from voxmill.volumes.blocks import ArrayVolume
from voxmill.volumes.grey_values import read_grey_values
from voxmill.volumes.measure_volume import measure_volume
from voxmill.volumes.probability import rounding, to_stored

SETTINGS = MSDNetSettings(depth=5, width=1, dilations=(1, 2))
SHAPE = (20, 22, 40)
CPU = {"device": "cpu"}


def test_a_tile_with_the_exact_halo_is_the_core_of_the_whole_volume():
    network = build("msdnet", SETTINGS, seed=4).eval()
    voxels = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    settings = PredictionSettings(device="cpu")
    whole = predict(network, voxels, settings, 1)[0]
    radius = SETTINGS.receptive_radius_vox
    volume = PlannedVolume(SHAPE, "float32", (1, 1, 1))
    for tile in Plan(volume, "f", (10, 22, 16), (radius,) * 3).tiles:
        part = voxels[tile.window.slices]
        core = predict(network, part, settings, 1)[0][tile.core_in_window.slices]
        expected = whole[tile.core.slices]
        np.testing.assert_allclose(core, expected, atol=1e-5)


def test_the_error_falls_to_zero_at_the_true_halo():
    """A 'network' with an exactly known field: the mean over 9 voxels along x."""
    voxels = np.random.default_rng(1).random((1, 1, 60))

    def predict_box(box, halo):
        start, stop = box
        first = max(0, start[2] - halo)
        seen = voxels[:, :, first : min(60, stop[2] + halo)]
        padded = np.pad(seen, ((0, 0), (0, 0), (4, 4)))
        means = np.lib.stride_tricks.sliding_window_view(padded, 9, axis=2).mean(axis=-1)
        return means[:, :, start[2] - first : stop[2] - first]

    errors = errors_by_halo(predict_box, [Box((0, 0, 28), (1, 1, 32))], 16)
    assert list(errors) == [0, 2, 4, 6, 8, 10, 12]
    assert errors[0] > errors[2] > 1e-3
    assert all(error < 1e-12 for halo, error in errors.items() if halo >= 4)


def test_the_richest_boxes_are_kept():
    voxels = np.zeros((4, 4, 40))
    voxels[2, 2, 22] = 5.0

    def read_box(box):
        return voxels[box.slices]

    starts = np.array([[0, 0, 0], [0, 0, 20], [0, 0, 30]])
    assert richest_boxes(read_box, starts, (4, 4, 5), 1) == [Box((0, 0, 20), (4, 4, 25))]
    assert random_starts((4, 4, 40), (4, 4, 5), 9, 0).max(axis=0)[2] <= 35


def test_seam_boxes_straddle_seams():
    starts = seam_starts((20, 20, 20), (20, 10, 7), (4, 4, 4), 40, 0)
    assert len(starts) == 40
    on_y = (starts[:, 1] < 10) & (starts[:, 1] + 4 > 10)
    on_x = np.any([(starts[:, 2] < s) & (starts[:, 2] + 4 > s) for s in (7, 14)], axis=0)
    assert (on_y | on_x).all()
    assert (on_y & on_x).any()


def test_a_single_tile_has_no_seam():
    assert seam_starts((20, 20, 20), (20, 20, 20), (4, 4, 4), 10, 0).shape == (0, 3)
    empty = {"largest": 0.0, "mean": 0.0, "rounding": 0.0, "cells": 0, "gained": [], "lost": []}
    assert summarise([]) == empty | dict.fromkeys(LABEL_COUNTS, 0)


def blob(shape, *places):
    grid = np.indices(shape)
    volume = np.zeros(shape, np.float32)
    for place in places:
        squared = sum((g - p) ** 2 for g, p in zip(grid, place, strict=True))
        volume = np.maximum(volume, np.exp(-squared / 4).astype(np.float32))
    return volume


def test_gained_and_lost_cells_are_found():
    shape = (12, 12, 30)
    reference = blob(shape, (6, 6, 6), (6, 6, 15))
    stitched = blob(shape, (6, 6, 6), (6, 6, 24))
    settings = CellSettings(threshold=0.5, min_distance_um=3.0)
    core = Box.from_shape(shape)
    found = compare_cells(reference, stitched, settings, (1, 1, 1), core)
    assert found["cells"] == 2
    np.testing.assert_allclose(found["lost"], [[6, 6, 15]], atol=0.1)
    np.testing.assert_allclose(found["gained"], [[6, 6, 24]], atol=0.1)
    part = Box.from_shape((12, 12, 10))
    outside = compare_cells(reference, stitched, settings, (1, 1, 1), part)
    assert (outside["cells"], outside["gained"], outside["lost"]) == (1, [], [])


def test_labels_that_differ_are_counted():
    reference, found = np.zeros((2, 1, 1, 12), np.uint32)
    reference[0, 0] = [0, 1, 1, 1, 1, 2, 2, 0, 3, 3, 4, 4]
    found[0, 0] = [0, 1, 1, 9, 9, 2, 2, 0, 3, 3, 3, 3]
    assert compare_labels(reference, found) == {
        "labels": 5, "labels_differ": 4, "label_voxels": 10, "label_voxels_differ": 4,
        "labels_split": 1, "labels_merged": 1,
    }  # fmt: skip
    assert compare_labels(reference, reference)["labels_differ"] == 0
    rows = [compare_labels(reference, each) for each in (found, reference)]
    assert sum_labels(rows)["labels"] == 9
    assert sum_labels([*rows, {"cells": 3}]) == {}, "where labels were not compared"


def test_labels_are_not_compared_without_the_native_code(monkeypatch):
    image = ArrayVolume(np.zeros((4, 4, 4), np.float32))
    assert _labels_of(image, ObjectSettings(), VoxelSize(1, 1, 1)) is not None
    monkeypatch.setattr(voxmill.evaluation.measure_seams, "load", lambda source: "no compiler")
    assert _labels_of(image, ObjectSettings(), VoxelSize(1, 1, 1)) is None


def test_partners_have_one_label_and_others_have_their_own():
    shape = (12, 12, 30)
    reference = blob(shape, (6, 6, 6), (6, 6, 15))
    stitched = blob(shape, (6, 6, 6), (6, 6, 24))

    def label(probability, places, ids):
        labels = np.zeros(probability.shape, np.uint32)
        labels[tuple(np.rint(places).astype(int).T)] = ids
        return labels

    settings = CellSettings(threshold=0.5, min_distance_um=3.0)
    core = Box.from_shape(shape)
    found = compare_cells(reference, stitched, settings, (1, 1, 1), core, label)
    assert (found["labels"], found["labels_differ"], found["label_voxels_differ"]) == (3, 2, 2)


@pytest.fixture
def files(tmp_path):
    """A volume with blobs, its statistics, a network of random weights."""
    rng = np.random.default_rng(2)
    volume = (100 + 20 * rng.random(SHAPE) + 500 * blob(SHAPE, (9, 11, 20), (5, 5, 9))).astype(
        np.uint16
    )
    write_planes(tmp_path / "v.tif", volume, SHAPE, np.uint16, (2.0, 1.0, 1.0))
    card = models.ModelCard("m", "msdnet", dataclasses.asdict(SETTINGS))
    models.save(tmp_path / "m.safetensors", build("msdnet", SETTINGS, seed=4), card)
    source = {"path": str(tmp_path / "v.tif")}
    blocks = tmp_path / "grey_blocks.npz"
    measure_volume(volume=source, output_path=tmp_path / "s.json", blocks_path=blocks)
    return tmp_path, source


@pytest.fixture
def predictor(files):
    """The network on the opened volume."""
    folder, source = files
    card, network = models.load(folder / "m.safetensors")
    normalise = read_grey_values(folder / "s.json").normaliser(card.normalisation)
    with open_volume(read_header(**source)) as volume:
        settings = PredictionSettings(device="cpu", backend="torch")
        yield VolumePredictor(card, network, volume, normalise, settings, 1)


def test_a_box_with_its_halo_is_that_of_the_whole_volume(predictor):
    whole = predictor.predict(Box.from_shape(SHAPE), 0)
    box = Box((3, 0, 10), (9, 22, 17))
    part = predictor.predict(box, SETTINGS.receptive_radius_vox)
    expected = whole[box.slices]
    np.testing.assert_allclose(part, expected, atol=1e-6)
    short = predictor.predict(box, 1)
    assert np.abs(short - expected).max() > 1e-4


def test_the_halo_shrinks_to_what_the_memory_holds(predictor, monkeypatch, caplog):
    radius = SETTINGS.receptive_radius_vox
    assert predictor.largest_halo() == radius == 7
    assert not [r for r in caplog.records if r.levelname == "WARNING"]
    backend = BACKENDS["torch"]
    bytes_of = [box_bytes(backend, SETTINGS, "float32", (2 * c + 1,) * 3) for c in (4, 6)]
    monkeypatch.setattr(volume_predictor, "free_bytes", lambda device: sum(bytes_of) / 2 / SHARE)
    assert predictor.largest_halo() == 4
    assert "a halo of 7 voxels does not fit the free memory: going on with 4" in caplog.text
    monkeypatch.setattr(volume_predictor, "free_bytes", lambda device: 1)
    assert predictor.largest_halo() == 0


@pytest.mark.parametrize("tolerance", [0.9, 1e-3, 1e-9])
def test_the_halo_is_the_smallest_within_the_tolerance(files, tolerance):
    folder, source = files
    measure_halo(
        volume=source, statistics_path=folder / "s.json", weights_path=folder / "m.safetensors",
        output_path=folder / "h.json", settings={"tolerance": tolerance, "core_vox": 8},
        prediction=CPU, threads=1,
    )  # fmt: skip
    found = json.loads((folder / "h.json").read_text())
    errors = {int(h): e for h, e in found["errors"].items()}
    halo = found["halo_vox"][0]
    assert found["halo_vox"] == [halo] * 3
    assert all(error > tolerance for h, error in errors.items() if h < halo)
    assert halo == found["radius_vox"] == SETTINGS.receptive_radius_vox or errors[halo] <= tolerance


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(("halo", "exact"), [(SETTINGS.receptive_radius_vox, True), (0, False)])
def test_the_certificate_tells_a_sufficient_halo_from_none(files, halo, exact, dtype):
    folder, source = files
    plan_volume(
        volume=source, fingerprint=fingerprint(read_header(**source)),
        tile_shape_vox=(20, 11, 20), halo_vox=(halo,) * 3,
        halo_paths=[], output_path=folder / "plan.json",
    )  # fmt: skip
    stitch_predictions(folder, source, dtype)
    measure_seams(
        volume=source, plan_path=folder / "plan.json", statistics_path=folder / "s.json",
        weights_path=folder / "m.safetensors", probability_path=folder / "p.tif",
        output_path=folder / "seams.json", settings={"windows": 4, "window_vox": 8},
        cells={"min_distance_um": 3.0}, objects={"threshold": 0.3}, prediction=CPU, threads=1,
    )  # fmt: skip
    found = json.loads((folder / "seams.json").read_text())
    assert len(found["windows"]) == 4
    # Whatever rounding the stored type adds.
    assert (found["largest"] < 1e-5) == exact
    assert found["rounding"] <= rounding(dtype) + 1e-5
    assert 0 <= found["mean"] <= found["largest"]
    if exact:
        assert (found["gained"], found["lost"]) == ([], [])
        assert found["labels_differ"] == 0


@pytest.mark.parametrize(
    ("tiles", "windows"), [(1, 12), (4, 12), (5, 15), (30, 90), (40, 120), (1000, 120)]
)
def test_larger_volumes_get_larger_samples(tiles, windows):
    assert SeamSettings().windows_of(tiles) == windows
    assert SeamSettings(windows=7).windows_of(tiles) == 7


def test_stored_numbers_that_are_not_the_tiles_show_as_rounding(files):
    folder, source = files
    plan_volume(
        volume=source, fingerprint=fingerprint(read_header(**source)),
        tile_shape_vox=(20, 11, 20), halo_vox=(7,) * 3,
        halo_paths=[], output_path=folder / "plan.json",
    )  # fmt: skip
    write_planes(folder / "p.tif", np.zeros(SHAPE, np.uint8), SHAPE, np.uint8, (2.0, 1.0, 1.0))
    measure_seams(
        volume=source, plan_path=folder / "plan.json", statistics_path=folder / "s.json",
        weights_path=folder / "m.safetensors", probability_path=folder / "p.tif",
        output_path=folder / "seams.json", settings={"windows": 1, "window_vox": 8},
        cells={"min_distance_um": 3.0}, objects={"threshold": 0.3}, prediction=CPU, threads=1,
    )  # fmt: skip
    found = json.loads((folder / "seams.json").read_text())
    assert found["largest"] < 1e-5
    assert found["rounding"] > 0.1


def stitch_predictions(folder, source, dtype):
    from voxmill.runtime.files import read_json
    from voxmill.volumes import open_volume, read_header
    from voxmill.volumes.normalisation import normalise

    _, network = models.load(folder / "m.safetensors")
    plan = read_plan(folder / "plan.json")
    header = read_header(**source)
    stitched = np.empty(SHAPE, np.float32)
    with open_volume(header) as volume:
        for tile in plan.tiles:
            voxels = volume.read_window(*tile.window)
            card = models.read_card(folder / "m.safetensors")
            voxels = normalise(voxels, read_json(folder / "s.json"), card.normalisation)
            probability = predict(network, voxels, PredictionSettings(device="cpu"), 1)[0]
            stitched[tile.core.slices] = probability[tile.core_in_window.slices]
    tifffile.imwrite(folder / "p.tif", to_stored(stitched, dtype), photometric="minisblack")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HaloSettings(tolerance=0), r"halo\.tolerance: expected a number > 0 and < 1"),
        (lambda: SeamSettings(windows=0), r"seams\.windows: expected an integer >= 1, found 0"),
        (lambda: SeamSettings(window_vox=1), r"seams\.window_vox: expected an integer >= 2"),
        (lambda: PredictionSettings(device="tpu"), r"prediction\.device: expected one of"),
        (lambda: PredictionSettings(precision="int8"), r"prediction\.precision: expected one of"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(VoxmillError, match=message):
        make()


def test_a_missing_gpu_is_named(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == "cpu"
    with pytest.raises(VoxmillError, match="expected a CUDA device, found none"):
        resolve_device("cuda")
