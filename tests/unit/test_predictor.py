"""What a prediction is made from, and tiles without tissue."""

import contextlib
import dataclasses
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from voxmill.config.networks import MSDNetSettings
from voxmill.config.prediction import PredictionSettings
from voxmill.networks import build, models
from voxmill.prediction import memory, streams
from voxmill.prediction.identity import identity, numerical_class
from voxmill.prediction.predictor import Predictor, Written
from voxmill.tiles.plan import Plan, PlannedVolume, write_plan
from voxmill.volumes import read_header, write_tile
from voxmill.volumes.grey_values import write_grey_values
from voxmill.volumes.measure_volume import measure_grey_values

SIZE_UM = (4.0, 4.0, 4.0)
SETTINGS = PredictionSettings(device="cpu", backend="torch")
SHAPE = (16, 16, 96)


@pytest.fixture
def volume(tmp_path):
    """Two tiles: tissue with noise on the left, air on the right; blocks of 4 voxels."""
    rng = np.random.default_rng(0)
    array = rng.normal(100, 2, SHAPE)
    array[..., :32] = rng.normal(1000, 50, (16, 16, 32))
    array = array.astype(np.uint16)
    tifffile.imwrite(tmp_path / "v.tif", array, photometric="minisblack")
    header = read_header(tmp_path / "v.tif", voxel_size_um=SIZE_UM)
    write_grey_values(measure_grey_values(header), tmp_path / "s.json", tmp_path / "blocks.npz")
    plan = Plan(PlannedVolume(SHAPE, "uint16", SIZE_UM), "phantom f", (16, 16, 48), (2, 2, 2))
    write_plan(tmp_path / "plan.json", plan)
    for tile in plan.tiles:
        voxels = array[tile.window.slices]
        key = {"tile": tile.key}
        write_tile(tmp_path / f"{tile.name}.tif", voxels, SIZE_UM, tile.window.start, key)
    shape = MSDNetSettings(depth=2, width=1, dilations=(1,))
    card = models.ModelCard("m", "msdnet", dataclasses.asdict(shape))
    models.save(tmp_path / "m.safetensors", build("msdnet", shape, seed=0), card)
    return tmp_path


TISSUE, AIR = "z0000_y0000_x0000", "z0000_y0000_x0048"


def predict(folder, settings=SETTINGS, code="c", names=(TISSUE, AIR), source=None):
    """Predict tiles; returns what is known of each, and how often a device was claimed."""
    storage = {"dtype": "float32", "compression": "none"}
    written = Written(str(folder / "p.zarr"), str(folder), storage)
    inputs = (folder / "plan.json", folder / "s.json", folder / "m.safetensors")
    claims = []

    @contextlib.contextmanager
    def claim():
        claims.append(1)
        yield settings

    predictor = Predictor(*inputs, written, settings, code, 1)
    tiles = predictor.run(names, source or {"folder": str(folder)}, claim)
    return tiles, len(claims)


def edit_card(folder, **changes):
    """Change a card, but not its date."""
    path = Path(folder, "m.json")
    before = path.stat()
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(content))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_tile_without_tissue_is_empty_and_claims_no_device(volume):
    tiles, claims = predict(volume)
    assert [tile.stored.is_empty for tile in tiles] == [False, True]
    assert claims == 1
    shards = [p for p in (volume / "p.zarr").rglob("*") if p.is_file() and "c" in p.parts]
    assert len(shards) == 1
    assert json.loads((volume / f"{AIR}.json").read_text())["empty"] is True
    assert predict(volume, code="other", names=[AIR])[1] == 0


def test_what_is_whole_is_kept(volume):
    predict(volume)
    assert predict(volume)[1] == 0


@pytest.mark.parametrize(
    ("changes", "claims"),
    [
        ({"normalisation": {"low": 5.0, "high": 95.0, "clip": 10.0}}, 1),
        ({"normalisation": {"kind": "local"}}, 1),
        ({"normalisation": {"low": 5.0, "high": 99.0, "clip": 0.5}}, 1),
        ({"threshold": 0.9, "training": {"steps": 1}}, 0),
    ],
)
def test_a_changed_card_of_an_old_date_is_noticed(volume, changes, claims):
    """The fields that decide about probabilities count; the threshold decides about cells."""
    first = predict(volume)[0][0]
    edit_card(volume, **changes)
    tiles, claimed = predict(volume)
    assert claimed == claims
    assert (tiles[0].stored.sha256 != first.stored.sha256) == bool(claims)


@pytest.mark.parametrize(
    ("settings", "code", "claims"),
    [
        (SETTINGS, "d", 1),
        (dataclasses.replace(SETTINGS, flips=True), "c", 1),
        (dataclasses.replace(SETTINGS, precision="bfloat16"), "c", 1),
        (dataclasses.replace(SETTINGS, backend="auto"), "c", 0),
    ],
)
def test_settings_and_code_that_change_numbers_are_noticed(volume, settings, code, claims):
    predict(volume)
    assert predict(volume, settings, code)[1] == claims


def test_other_statistics_and_another_mask_of_tissue_are_noticed(volume):
    predict(volume)
    header = read_header(volume / "v.tif", voxel_size_um=SIZE_UM)
    values = measure_grey_values(header, tissue="none")
    write_grey_values(values, volume / "s.json", volume / "blocks.npz")
    tiles, claims = predict(volume)
    assert claims == 1
    assert [tile.stored.is_empty for tile in tiles] == [False, False]


def test_the_blocks_alone_are_part_of_the_identity(volume):
    """Local normalisation reads them; two files of statistics differ if only their blocks do."""
    values = measure_grey_values(read_header(volume / "v.tif", voxel_size_um=SIZE_UM))
    levels = values.blocks.levels.copy()
    levels[0, 0, 0, 0] += 1
    other = dataclasses.replace(values, blocks=dataclasses.replace(values.blocks, levels=levels))
    card, found = models.read_card(volume / "m.safetensors"), []
    for each in (values, other):
        write_grey_values(each, volume / "s.json", volume / "blocks.npz")
        statistics = json.loads((volume / "s.json").read_text())
        found.append(identity(card, statistics, SETTINGS, "c"))
    assert found[0]["statistics"] != found[1]["statistics"]
    assert {**found[0], "statistics": ""} == {**found[1], "statistics": ""}


def test_numerical_classes():
    classes = [
        numerical_class(PredictionSettings(backend=backend, precision=precision))
        for backend, precision in (
            ("torch", "float32"), ("fourier", "float32"), ("torch", "bfloat16"),
            ("openvino", "bfloat16"), ("fourier", "shared16"),
        )
    ]  # fmt: skip
    assert classes[0] == classes[1]
    assert len(set(classes)) == 4


def test_windows_of_the_volume_give_what_files_of_tiles_give(volume):
    """The same shard, and the same identity: what was predicted from the ones is kept for both."""
    tiles, _ = predict(volume)
    source = {"volume": {"path": str(volume / "v.tif"), "voxel_size_um": SIZE_UM}}
    kept, claims = predict(volume, source=source)
    assert (kept, claims) == (tiles, 0)
    for name in (TISSUE, AIR):
        (volume / f"{name}.json").unlink()
    again, claims = predict(volume, source=source)
    assert (again, claims) == (tiles, 1)


@pytest.fixture
def gpu(volume, monkeypatch):
    """Two tiles of one block each, and "cuda" that means the host; returns what happens, in order.

    A tile is computed until the other one has been copied to the device, or from it: copies that
    waited for the tile would never end.
    """
    values = measure_grey_values(
        read_header(volume / "v.tif", voxel_size_um=SIZE_UM), tissue="none"
    )
    write_grey_values(values, volume / "s.json", volume / "blocks.npz")
    log, happened = [], {name: threading.Event() for name in ("sent 2", "fetched 1")}
    compute, lock = streams.GpuDevice.compute, threading.Lock()

    def say(what):
        with lock:
            log.append(f"{what} {1 + sum(word.startswith(what) for word in log)}")
            if log[-1] in happened:
                happened[log[-1]].set()
            return log[-1]

    def upload(self, source):
        sent = torch.from_numpy(source.copy())
        say("sent")
        return sent

    def computed(self, given, core):
        waits = {"computed 1": "sent 2", "computed 2": "fetched 1"}[say("computed")]
        assert happened[waits].wait(60), f"not {waits} meanwhile"
        return compute(self, given, core)

    def download(self, found, target):
        target[...] = found
        say("fetched")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(streams, "lanes", lambda device: (None, None))
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10**9)
    for name, method in (("upload", upload), ("compute", computed), ("download", download)):
        monkeypatch.setattr(streams.GpuDevice, name, method)
    return log


CUDA = dataclasses.replace(SETTINGS, device="cuda")


def test_tiles_of_one_block_are_copied_while_others_are_computed(volume, gpu):
    found, _ = predict(volume, CUDA)
    assert sorted(gpu) == ["computed 1", "computed 2", "fetched 1", "fetched 2", "sent 1", "sent 2"]
    stored = [tile.stored.sha256 for tile in found]
    again, claims = predict(volume, SETTINGS, code="on the host")
    assert claims == 1
    assert [tile.stored.sha256 for tile in again] == stored


def test_a_tile_that_cannot_be_computed_leaves_the_one_before_it_whole(volume, gpu, monkeypatch):
    working = streams.GpuDevice.compute

    def broken(self, given, core):
        found = working(self, given, core)
        if "computed 2" in gpu:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return found

    monkeypatch.setattr(streams.GpuDevice, "compute", broken)
    with pytest.raises(RuntimeError, match="illegal"):
        predict(volume, CUDA)
    assert (volume / f"{TISSUE}.json").is_file() and not (volume / f"{AIR}.json").is_file()


def test_a_first_block_that_finds_no_room_is_sent_when_its_turn_comes(volume, gpu, monkeypatch):
    working, tries = streams.GpuDevice.upload, []

    def upload(self, source):
        tries.append(source.shape)
        if len(tries) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return working(self, source)

    monkeypatch.setattr(streams.GpuDevice, "upload", upload)
    predict(volume, CUDA)
    assert len(tries) == 3 and len(gpu) == 6
