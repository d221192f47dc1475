"""Stages of layers give what the whole network gives, for any tiles, and through files."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from voxmill import models
from voxmill.cutting import cut_tile
from voxmill.engine.backends import BACKENDS, forward
from voxmill.engine.box import PredictionSettings, predict
from voxmill.engine.layers import StageFiles, evaluate_in_stages, stage_network
from voxmill.engine.predict import predict_batch, predict_tile
from voxmill.engine.stage import evaluate_stage
from voxmill.engine.trial import _difference
from voxmill.errors import VoxmillError
from voxmill.networks import build
from voxmill.networks.settings import MSDNetSettings
from voxmill.planning import plan_volume, read_plan
from voxmill.stages import make_stages
from voxmill.statistics import measure_volume, normalise
from voxmill.volumes import read_tile, write_planes

SETTINGS = MSDNetSettings(depth=5, width=2, dilations=(1, 3, 2), inputs=2, outputs=2)
CPU = [
    name for name, backend in BACKENDS.items()
    if backend.available(build("msdnet", SETTINGS), "cpu") is None
]  # fmt: skip


def with_biases(settings, seed):
    """A network whose maps differ from zero where its input is zero, as a trained one's do."""
    network = build("msdnet", settings, seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for bias in (*network.biases, network.final_bias):
            bias.normal_(0.0, 0.3, generator=generator)
    return network


@hypothesis_settings(max_examples=40)
@given(data=st.data())
def test_stages_on_tiles_equal_the_whole(data):
    settings = MSDNetSettings(
        depth=data.draw(st.integers(1, 7)),
        width=data.draw(st.integers(1, 3)),
        dilations=tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))),
        inputs=data.draw(st.integers(1, 2)),
        outputs=data.draw(st.integers(1, 2)),
    )
    inner = data.draw(st.sets(st.integers(1, settings.depth)))
    cuts = sorted(inner | {0, settings.depth})
    shape = data.draw(st.tuples(*[st.integers(1, 18)] * 3))
    tile = data.draw(st.tuples(*[st.integers(4, 18)] * 3))
    seed = data.draw(st.integers(0, 99))
    network = with_biases(settings, seed)
    volume = np.random.default_rng(seed).normal(size=(settings.inputs, *shape)).astype(np.float32)
    backend = data.draw(st.sampled_from(["torch", "auto"]))
    found = evaluate_in_stages(network, volume, tile, cuts, backend=backend)
    np.testing.assert_allclose(found, forward(network, volume, "torch"), atol=1e-5)


def test_blocks_of_a_tile_change_nothing():
    network = with_biases(SETTINGS, 1)
    volume = np.random.default_rng(1).normal(size=(2, 16, 16, 16)).astype(np.float32)
    # Of the last stage: a block of a few voxels with its halo, and no more.
    budget = BACKENDS["torch"].predict_bytes(SETTINGS, (10, 10, 10), "float32")
    small = evaluate_in_stages(
        network, volume, (8, 8, 8), [0, 1, 2, 3, 4, 5], backend="torch", budget_bytes=budget
    )
    np.testing.assert_allclose(small, forward(network, volume, "torch"), atol=1e-5)


@pytest.mark.parametrize("name", CPU)
def test_every_backend_gives_maps_as_they_are(name):
    network = with_biases(SETTINGS, 2)
    first, second, _ = make_stages(SETTINGS, [0, 2, 4, 5])
    volume = 5 * np.random.default_rng(2).normal(size=(2, 9, 8, 7)).astype(np.float32)
    with torch.no_grad():
        seen = torch.from_numpy(volume)[None]
        for layer in range(4):
            seen = torch.cat((seen, network._layer(layer, seen)), dim=1)
    seen = seen[0].numpy()
    part = stage_network(network, second)
    assert not part.probabilities
    maps = forward(part, seen[:6], name)
    np.testing.assert_allclose(maps, seen[6:10], atol=1e-4, rtol=1e-4)
    # Probabilities of the network itself after a stage of the same shape: nothing is mixed up.
    probabilities = forward(network, volume, name)
    np.testing.assert_allclose(probabilities, forward(network, volume, "torch"), atol=1e-4)
    assert forward(stage_network(network, first), volume, name).shape == (4, 9, 8, 7)


def test_a_trial_measures_maps_by_their_size():
    maps = np.array([50.0, 1.0])
    assert _difference(maps + 1e-3, maps, 1e-4) is None
    assert "strays from PyTorch" in _difference(maps + 1e-2, maps, 1e-4)
    assert "strays from PyTorch" in _difference(maps / 50 + 1e-3, maps / 50, 1e-4)


SHAPE = (10, 14, 12)
CUTS = [0, 2, 3, 6]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A volume cut into tiles, and a network of three stages."""
    monkeypatch.chdir(tmp_path)
    voxels = np.random.default_rng(3).integers(0, 999, SHAPE).astype(np.uint16)
    write_planes("v.tif", iter(voxels), SHAPE, np.uint16, (1, 1, 1))
    volume = {"path": "v.tif", "channel": None, "voxel_size_um": [1, 1, 1]}
    settings = MSDNetSettings(depth=6, width=2, dilations=(1, 2))
    network = with_biases(settings, 4)
    normalisation = {"low": 5.0, "high": 99.0, "clip": 10.0}
    card = models.ModelCard(
        "m", "msdnet", dataclasses.asdict(settings), normalisation=normalisation
    )
    models.save("m.safetensors", network, card)
    measure_volume(volume=volume, output_path="statistics.json")
    plan_volume(
        volume=volume, fingerprint="f", tile_shape_vox=(10, 6, 7), halo_vox=(5, 5, 5),
        halo_paths=[], output_path="plan.json", exact={"m": "stages of layers"},
    )  # fmt: skip
    plan = read_plan("plan.json")
    assert plan["exact"] == {"m": "stages of layers"}
    for tile in plan["tiles"]:
        cut_tile(
            volume=volume, plan_path="plan.json", tile=tile["name"],
            output_path=f"tiles/{tile['name']}.tif",
        )  # fmt: skip
    statistics = json.loads((tmp_path / "statistics.json").read_text())
    scaled = normalise(voxels, statistics, normalisation)
    whole = predict(network, scaled, PredictionSettings(device="cpu"), 1)[0]
    return plan, whole


def arguments(index):
    return {
        "plan_path": "plan.json",
        "statistics_path": "statistics.json",
        "weights_path": "m.safetensors",
        "settings": {"device": "cpu"},
        "layers": {"cuts": CUTS, "index": index, "folder": "maps"},
        "code": "c",
        "threads": 1,
    }


def run_stage(index, name):
    stage = ("layers000-002", "layers002-003")[index]
    output = f"maps/{stage}/{name}.maps"
    evaluate_stage(tile_path=f"tiles/{name}.tif", output_path=output, **arguments(index))


def check(plan, whole):
    for tile in plan["tiles"]:
        shape = np.subtract(tile["stop"], tile["start"])
        found = read_tile(f"predictions/{tile['name']}.tif", shape, np.float32)
        place = tuple(slice(a, b) for a, b in zip(tile["start"], tile["stop"], strict=True))
        np.testing.assert_allclose(found, whole[place], atol=1e-5)


def test_jobs_of_three_stages_give_the_prediction_of_the_whole(project):
    plan, whole = project
    names = [tile["name"] for tile in plan["tiles"]]
    for index in (0, 1):
        for name in names:
            run_stage(index, name)
    for name in names:
        predict_tile(
            tile_path=f"tiles/{name}.tif", output_path=f"predictions/{name}.tif", **arguments(2)
        )
    check(plan, whole)
    # In one job they are found there; with other borders they would be made anew.
    predict_batch(
        tile_paths=[f"tiles/{name}.tif" for name in names], predictions_folder="predictions",
        manifest_path="manifest.json", **arguments(2), log_path="batch.log",
    )  # fmt: skip
    with open("batch.log") as log:
        assert f"{len(names)} of {len(names)} tiles are there already" in log.read()
    check(plan, whole)


def test_a_stage_names_the_maps_that_it_misses(project, caplog):
    plan, _ = project
    names = [tile["name"] for tile in plan["tiles"]]
    run_stage(0, names[0])
    with pytest.raises(SystemExit):
        run_stage(1, names[0])
    assert f"maps/layers000-002/{names[1]}.maps: these maps do not exist" in caplog.text


def test_stages_that_do_not_fit_the_plan_or_network_are_refused(project):
    plan, _ = project
    settings = MSDNetSettings(depth=6, width=2, dilations=(1, 2))
    with pytest.raises(VoxmillError, match="expected an index below 3, found 3"):
        StageFiles((0, 2, 3, 6), 3, "maps").stage(settings)
    with pytest.raises(VoxmillError, match="borders that rise from 0 to 6"):
        StageFiles((0, 2, 3, 7), 0, "maps").stage(settings)
    with pytest.raises(VoxmillError, match=r"expected a halo of 8 voxels or more .*\[5, 5, 5\]"):
        StageFiles((0, 1, 6), 1, "maps").window(settings, plan, None, None, "m")
