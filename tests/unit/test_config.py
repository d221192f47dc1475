"""The configuration: defaults, and one clear error for each way to get it wrong."""

import copy
import dataclasses

import numpy as np
import pytest
import tifffile

from tests.workflow.conftest import save_identity
from voxmill.runtime.errors import VoxmillError
from voxmill.workflow import configuration as config
from voxmill.workflow import configured_volume


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
    assert checked.tiles("v") == ("z0000_y0000_x0000",)
    assert checked.halo_vox("v") is None
    assert checked.cell_settings("v", "n")["threshold"] == checked.cards["n"].threshold


def test_the_detector_is_the_models_or_the_configurations(settings):
    checked = config.load(settings)
    card = checked.cards["n"]
    assert checked.cell_settings("v", "n") == checked.settings["cells"] | {
        "method": "maxima", "threshold": card.threshold
    }  # fmt: skip
    detector = {"method": "components", "min_volume_um3": 5.0}
    checked.cards["n"] = dataclasses.replace(card, detector=detector)
    # What the card leaves out is not the configuration's: its smoothing would change the cells.
    assert checked.cell_settings("v", "n") == detector | {"threshold": card.threshold}
    own = config.load(put(settings, "cells.method", "maxima"))
    own.cards["n"] = checked.cards["n"]
    assert own.cell_settings("v", "n")["method"] == "maxima"


def test_settings_of_a_network_or_of_a_volume_win(settings):
    """Two stains in one run: each has cells of its own size."""
    settings = put(settings, "networks.n.cells", {"min_distance_um": 4, "threshold": 0.7})
    settings = put(settings, "volumes.w", settings["volumes"]["v"])
    settings = put(settings, "volumes.w.cells", {"min_distance_um": 9})
    settings = put(settings, "volumes.w.max_distance_um", 3)
    checked = config.load(settings)
    first, second = (checked.cell_settings(name, "n") for name in "vw")
    assert (first["min_distance_um"], second["min_distance_um"]) == (4, 9)
    assert first["threshold"] == second["threshold"] == 0.7
    assert first["smoothing_um"] == checked.settings["cells"]["smoothing_um"]
    assert (checked.max_distance_um("v"), checked.max_distance_um("w")) == (5, 3)
    # The card's detector holds but for what was said.
    card = dataclasses.replace(checked.cards["n"], detector={"method": "components"})
    checked.cards["n"] = card
    assert checked.cell_settings("w", "n") == {
        "method": "components", "min_distance_um": 9, "threshold": 0.7
    }  # fmt: skip
    with pytest.raises(VoxmillError, match=r"volumes\.w\.cells"):
        config.load(put(settings, "volumes.w.cells", {"min_distance": 9}))


def test_the_given_configuration_is_not_changed(settings):
    before = copy.deepcopy(settings)
    config.load(settings)
    assert settings == before


def test_slabs_are_rows_of_tiles_along_z(settings):
    checked = config.load(put(settings, "tiles.shape_vox", [4, 4, 8]))
    grid = checked.grid("v")
    assert grid.slabs == ["z0000", "z0004"]
    assert [grid.name(number) for number in grid.slab("z0004")] == [
        "z0004_y0000_x0000", "z0004_y0004_x0000"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("halo", "expected"),
    [(3, (3, 3, 3)), ([1, 2, 3], (1, 2, 3)), ("exact", (1, 1, 1)), (0, (0,) * 3)],
)
def test_halos(settings, halo, expected):
    assert config.load(put(settings, "tiles.halo_vox", halo)).halo_vox("v") == expected


@pytest.mark.parametrize(
    ("kind", "module", "changed"),
    [
        ("phantom", "voxmill.phantoms.make_phantom", True),
        ("own", "voxmill.volumes.unpack_volume", False),
    ],
)
def test_what_voxmill_makes_is_another_volume_when_its_code_is(
    settings, monkeypatch, kind, module, changed
):
    """The fingerprint is in the key of each tile: those of the old code are not kept."""
    volumes = {
        "phantom": {"phantom": {"shape_vox": [8] * 3, "voxel_size_um": [1] * 3, "seed": 1}},
        "own": {"path": "v.tif", "voxel_size_um": [1, 1, 1]},
    }
    settings = put(settings, "volumes.v", volumes[kind])
    before = config.load(settings).volumes["v"].fingerprint
    assert config.load(settings).volumes["v"].fingerprint == before
    monkeypatch.setattr(
        configured_volume, "source_digest", lambda name: "new" if name == module else ""
    )
    assert (config.load(settings).volumes["v"].fingerprint != before) == changed


def test_a_phantom_needs_no_file(settings):
    phantom = {"shape_vox": [8, 9, 10], "voxel_size_um": [2, 1, 1], "seed": 1}
    volume = config.load(put(settings, "volumes.v", {"phantom": phantom})).volumes["v"]
    assert (volume.path, volume.shape, volume.has_truth) == (None, (8, 9, 10), True)


def test_an_empty_section_means_its_defaults(settings):
    assert config.load(settings | {"tiles": None}).tile_shape_vox == (256, 256, 256)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "tilez",
            {},
            r"config: unknown key 'tilez'; did you mean 'tiles'\? The known ones are cells, ",
        ),
        (
            "tiles.shape",
            [1, 1, 1],
            r"tiles: unknown key 'shape'; did you mean 'shape_vox'\? The known ones are halo_toler",
        ),
        (
            "tiles.shape_vox",
            [0, 4, 4],
            r"tiles\.shape_vox: expected three integers >= 1, found \[0, 4, 4\]",
        ),
        (
            "tiles.shape_vox",
            [4, 4],
            r"tiles\.shape_vox: expected three integers >= 1, found \[4, 4\]",
        ),
        ("tiles.halo_vox", -1, r"tiles\.halo_vox: expected an integer >= 0, or .*found -1"),
        ("tiles.halo_vox", "some", r"tiles\.halo_vox: .*or one of auto, exact, found 'some'"),
        (
            "tiles.halo_tolerance",
            2,
            r"tiles\.halo_tolerance: expected a number > 0 and < 1, found 2",
        ),
        (
            "prediction.device",
            "gpu",
            r"prediction\.device: expected one of auto, cpu, cuda, found 'gpu'",
        ),
        (
            "cells.threshold",
            1.5,
            r"cells\.threshold: expected a number > 0 and <= 1, or model, found 1\.5",
        ),
        (
            "evaluation.max_distance_um",
            0,
            r"evaluation\.max_distance_um: expected a number > 0, found 0",
        ),
        ("volumes", {}, "nothing to do: expected volumes"),
        (
            "volumes.a b",
            {"path": "v.tif"},
            "volumes: expected a name of at most 100 letters.* found 'a b'",
        ),
        ("volumes.v", {}, r"volumes\.v: expected either path .* or phantom .*, found neither"),
        ("volumes.v.phantom", {"shape_vox": [8] * 3, "voxel_size_um": [1] * 3}, "found both"),
        ("volumes.v.path", "absent.tif", r"volumes\.v\.path: absent\.tif: this volume does not"),
        ("volumes.v.path", "truth.csv", r"volumes\.v\.path: truth\.csv"),
        ("volumes.v.tissue", "no.tif", r"volumes\.v\.tissue: no\.tif: this volume does not exist"),
        ("volumes.v.tissue", "truth.csv", r"volumes\.v\.tissue: truth\.csv"),
        ("volumes.v.channel", 3, r"volumes\.v\.path: v\.tif.*channel"),
        (
            "volumes.v.voxel_size_um",
            [0, 1, 1],
            r"voxel_size_um: expected three numbers > 0, found \[0, 1, 1\]",
        ),
        ("volumes.v.voxel_size_um", None, r"voxel_size_um: the header of v\.tif tells no"),
        ("volumes.v.truth.path", "no.csv", r"truth\.path: no\.csv does not exist"),
        (
            "volumes.v.truth.kind",
            "dots",
            r"volumes\.v\.truth\.kind: expected one of points, .*found 'dots'",
        ),
        ("volumes.v.region", "all", r"volumes\.v\.region: expected a box .*found 'all'"),
        ("volumes.v.region", "0:9, 0:1, 0:1", r"volumes\.v\.region: box: expected a part"),
        ("volumes.v.networks", ["x"], r"volumes\.v\.networks: expected some of \['n'\], found 'x'"),
        (
            "networks.n.weights",
            "m.pt",
            r"networks\.n\.weights: expected a file name that .*found 'm\.pt'",
        ),
        ("networks.n.weights", "x.safetensors", r"networks\.n\.weights: x\.json: this model card"),
        ("networks", {}, "networks: expected at least one network for the volumes"),
        (
            "networks.tiles",
            {"weights": "m.safetensors"},
            "networks: expected another name than tiles",
        ),
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
