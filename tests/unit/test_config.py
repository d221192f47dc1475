"""The configuration: defaults, and one clear error for each way to get it wrong."""

import copy
import dataclasses

import numpy as np
import pytest
import tifffile
import yaml

from tests.workflow.conftest import ROOT, save_identity
from voxmill.config.schema import check
from voxmill.runtime.errors import VoxmillError
from voxmill.workflow import configuration as config

SCHEMA = yaml.safe_load(config.SCHEMA.read_text())


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_identity(tmp_path / "m.safetensors")
    tifffile.imwrite("v.tif", np.arange(6 * 7 * 8, dtype=np.uint16).reshape(6, 7, 8))
    (tmp_path / "truth.csv").write_text("z_vox,y_vox,x_vox\n1,2,3\n")
    return {
        "volumes": {
            "v": {
                "path": "v.tif",
                "voxel_size_um": [2, 1, 1],
                "truth": {"path": "truth.csv", "kind": "points"},
            }
        },
        "networks": {"n": {"weights": "m.safetensors"}},
    }


def put(settings, key, value):
    changed = copy.deepcopy(settings)
    *folders, last = key.split(".")
    place = changed
    for name in folders:
        place = place.setdefault(name, {})
    if value is None:
        place.pop(last)
    else:
        place[last] = value
    return changed


def test_defaults_are_filled_and_the_header_is_read(settings):
    checked = config.load(settings)
    assert checked.settings["cells"]["method"] == "model"
    assert checked.tile_shape_vox == (256, 256, 256)
    volume = checked.volumes["v"]
    assert (volume.shape, volume.voxel_size_um, volume.itemsize) == ((6, 7, 8), (2, 1, 1), 2)
    assert volume.networks == ("n",)
    assert checked.tiles("v") == ["z0000_y0000_x0000"]
    assert checked.halo_vox("v") is None
    assert checked.threshold("n") == checked.cards["n"].threshold


def test_the_detector_is_the_models_or_the_configurations(settings):
    checked = config.load(settings)
    card = checked.cards["n"]
    assert checked.cell_settings("n") == checked.settings["cells"] | {
        "method": "maxima", "threshold": card.threshold
    }  # fmt: skip
    detector = {"method": "components", "min_volume_um3": 5.0}
    checked.cards["n"] = dataclasses.replace(card, detector=detector)
    # What the card leaves out is not the configuration's: its smoothing would change the cells.
    assert checked.cell_settings("n") == detector | {"threshold": card.threshold}
    own = config.load(put(settings, "cells.method", "maxima"))
    own.cards["n"] = checked.cards["n"]
    assert own.cell_settings("n")["method"] == "maxima"


def test_the_given_configuration_is_not_changed(settings):
    before = copy.deepcopy(settings)
    config.load(settings)
    assert settings == before


def test_slabs_are_rows_of_tiles_along_z(settings):
    checked = config.load(put(settings, "tiles.shape_vox", [4, 4, 8]))
    assert checked.slabs("v") == ["z0000", "z0004"]
    assert checked.tiles_of_slab("v", "z0004") == ["z0004_y0000_x0000", "z0004_y0004_x0000"]


@pytest.mark.parametrize(
    ("halo", "expected"),
    [(3, (3, 3, 3)), ([1, 2, 3], (1, 2, 3)), ("exact", (1, 1, 1)), (0, (0,) * 3)],
)
def test_halos(settings, halo, expected):
    assert config.load(put(settings, "tiles.halo_vox", halo)).halo_vox("v") == expected


def test_a_phantom_needs_no_file(settings):
    phantom = {"shape_vox": [8, 9, 10], "voxel_size_um": [2, 1, 1], "seed": 1}
    volume = config.load(put(settings, "volumes.v", {"phantom": phantom})).volumes["v"]
    assert (volume.path, volume.shape, volume.has_truth) == (None, (8, 9, 10), True)


def test_an_empty_section_means_its_defaults(settings):
    assert config.load(settings | {"tiles": None}).tile_shape_vox == (256, 256, 256)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tilez", {}, r"\(top level\): unknown key 'tilez'; the known ones are .*tiles"),
        (
            "tiles.shape",
            [1, 1, 1],
            "tiles: unknown key 'shape'; the known ones are halo_toler",
        ),
        ("tiles.shape_vox", [0, 4, 4], r"tiles\.shape_vox\.0: 0 is less than the minimum of 1"),
        ("tiles.shape_vox", [4, 4], r"tiles\.shape_vox: \[4, 4\] is too short"),
        ("tiles.halo_vox", -1, r"tiles\.halo_vox: -1 .*"),
        ("tiles.halo_vox", "some", r"tiles\.halo_vox: 'some' .*"),
        ("tiles.halo_tolerance", 2, r"tiles\.halo_tolerance: 2 is greater than or equal"),
        ("prediction.device", "gpu", r"prediction\.device: 'gpu' is not one of"),
        ("cells.threshold", 1.5, r"cells\.threshold: 1\.5"),
        ("evaluation.max_distance_um", 0, r"max_distance_um: 0 is less than or equal"),
        ("volumes", {}, "nothing to do: expected volumes"),
        ("volumes.a b", {"path": "v.tif"}, "volumes: 'a b' does not match"),
        ("volumes.v", {}, r"volumes\.v: expected either path .* or phantom .*, found neither"),
        ("volumes.v.phantom", {"shape_vox": [8] * 3, "voxel_size_um": [1] * 3}, "found both"),
        ("volumes.v.path", "absent.tif", r"volumes\.v\.path: absent\.tif: this volume does not"),
        ("volumes.v.path", "truth.csv", r"volumes\.v\.path: truth\.csv"),
        ("volumes.v.channel", 3, r"volumes\.v\.path: v\.tif.*channel"),
        ("volumes.v.voxel_size_um", [0, 1, 1], r"voxel_size_um\.0: 0 is less than or equal"),
        ("volumes.v.voxel_size_um", None, r"voxel_size_um: the header of v\.tif tells no"),
        ("volumes.v.truth.path", "no.csv", r"truth\.path: no\.csv does not exist"),
        ("volumes.v.truth.kind", "dots", r"truth\.kind: 'dots' is not one of"),
        ("volumes.v.region", "all", r"volumes\.v\.region: 'all' does not match"),
        ("volumes.v.region", "0:9, 0:1, 0:1", r"volumes\.v\.region: region: expected a part"),
        ("volumes.v.networks", ["x"], r"volumes\.v\.networks: expected some of \['n'\], found 'x'"),
        ("networks.n.weights", "m.pt", r"networks\.n\.weights: 'm\.pt' does not match"),
        ("networks.n.weights", "x.safetensors", r"networks\.n\.weights: x\.json: this model card"),
        ("networks", {}, "networks: expected at least one network for the volumes"),
        ("networks.tiles", {"weights": "m.safetensors"}, "networks"),
    ],
)
def test_what_is_wrong_is_named(settings, key, value, message):
    with pytest.raises(VoxmillError, match=message):
        config.load(put(settings, key, value))


def test_weights_of_another_training_are_refused(settings, tmp_path):
    data = bytearray((tmp_path / "m.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "m.safetensors").write_bytes(data)
    with pytest.raises(VoxmillError, match=r"card beside m\.safetensors was written for other"):
        config.load(settings)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((8, 9), np.uint16), "expected"),
        (np.zeros((4, 8, 9), np.complex64), "complex"),
        (np.zeros((4, 8, 9, 3), np.uint8), "colour|RGB"),
    ],
)
def test_a_file_that_is_no_volume_is_refused_from_its_header(settings, array, message):
    if array.shape[-1] == 3:
        tifffile.imwrite("v.tif", array, photometric="rgb")
    else:
        tifffile.imwrite("v.tif", array, photometric="minisblack")
    with pytest.raises(VoxmillError, match=rf"volumes\.v\.path: v\.tif.*({message})"):
        config.load(settings)


def test_a_truncated_file_is_refused_from_its_header(settings, tmp_path):
    (tmp_path / "v.tif").write_bytes((tmp_path / "v.tif").read_bytes()[:700])
    with pytest.raises(VoxmillError, match=r"volumes\.v\.path: v\.tif: truncated"):
        config.load(settings)


def walk(schema, path=()):
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from walk(part, (*path, name))


def test_every_key_of_the_schema_is_described_or_a_section():
    for path, part in walk(SCHEMA):
        undescribed = "description" not in part and "$ref" not in part
        assert not undescribed or "properties" in part or path[-2:-1] == ("phantom",), path
        if "properties" in part and path[-1:] != ("phantom",):
            assert part["additionalProperties"] is not True, path


def test_defaults_of_the_schema_are_those_of_the_settings():
    from voxmill.prediction.box import PredictionSettings
    from voxmill.prediction.measure_halo import HaloSettings

    tiles = SCHEMA["properties"]["tiles"]["properties"]
    assert tiles["halo_tolerance"]["default"] == HaloSettings().tolerance
    for key, part in SCHEMA["properties"]["prediction"]["properties"].items():
        assert part["default"] == getattr(PredictionSettings(), key)


def test_the_registries_are_those_of_the_schema():
    from voxmill.cells.find_cells import METHODS
    from voxmill.evaluation.ground_truth import TRUTH

    cells = SCHEMA["properties"]["cells"]["properties"]
    assert set(cells["method"]["enum"]) == {"model", *METHODS}
    truth = SCHEMA["properties"]["volumes"]["additionalProperties"]["properties"]["truth"]
    assert set(truth["properties"]["kind"]["enum"]) == set(TRUTH)


def test_the_example_configuration_is_valid():
    content = yaml.safe_load((ROOT / "config.yaml").read_text())
    checked = check(content, SCHEMA, "config.yaml")
    assert set(checked) == set(SCHEMA["properties"])
