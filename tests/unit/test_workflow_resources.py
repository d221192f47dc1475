"""GPUs, memory and time that jobs ask for, without Snakemake."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest

from tests.unit.workflow_config import (
    EXPORTED,
    NETWORK,
    SHAPE,
    TILE,
    Machine,
    config,
    volume,
    wildcards,
)
from voxmill.config.training import TrainingSettings
from voxmill.denoising.scans import Denoising
from voxmill.engine.backends import BACKENDS
from voxmill.networks import check_settings
from voxmill.networks.models import read_card
from voxmill.runtime.digests import ROOT
from voxmill.workflow import memory
from voxmill.workflow.resources import Resources

OF_A, OF_B = wildcards(volume="v", network="a"), wildcards(volume="v", network="b")
WINDOW = (100, 120, 170)
VOXELS = math.prod(WINDOW)
MB = 2**20


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.delenv("VOXMILL_ON_CLUSTER", raising=False)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def resources(machine=None, volumes=None, devices=("auto",), **sections):
    denoising = Denoising({}, {}, {}, devices)
    return Resources(config(volumes, **sections), denoising, machine or Machine())


CLUSTER = Machine(non_local_exec=True)
NODE = Machine(remote_exec=True)


@pytest.mark.parametrize(
    ("device", "machine", "visible", "gpus"),
    [
        ("auto", Machine(), "", 0),
        ("auto", Machine(), "0,1", 1),
        ("auto", CLUSTER, "", 1),
        ("auto", NODE, "", 1),
        ("cpu", CLUSTER, "0", 0),
        ("cpu", Machine(), "0", 0),
        ("cuda", Machine(), "", 1),
    ],
)
def test_gpus_on_a_workstation_and_on_a_cluster(monkeypatch, device, machine, visible, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    asked = resources(
        machine, prediction={"device": device}, training={"n": {"settings": {"device": device}}}
    )
    assert asked.prediction_gpus(OF_A) == gpus
    assert asked.training_gpus(wildcards(trained="n")) == gpus


def test_tasks_of_job_arrays_are_on_a_cluster(monkeypatch):
    monkeypatch.setenv("VOXMILL_ON_CLUSTER", "1")
    assert resources(prediction={"device": "auto"}).prediction_gpus(OF_A) == 1


def test_a_training_asks_by_its_own_device():
    asked = resources(
        CLUSTER,
        prediction={"device": "cpu"},
        training={"n": {}, "on_cpu": {"settings": {"device": "cpu"}}},
    )
    assert asked.training_gpus(wildcards(trained="n")) == 1
    assert asked.training_gpus(wildcards(trained="on_cpu")) == 0


@pytest.mark.parametrize(
    ("devices", "machine", "gpus"),
    [
        (("auto",), Machine(), 0),
        (("auto",), CLUSTER, 1),
        (("cuda:0", "cuda:1"), Machine(), 2),
        (("cpu", "cuda:0"), CLUSTER, 1),
        (("cpu",), CLUSTER, 0),
    ],
)
def test_gpus_of_a_denoising(devices, machine, gpus):
    asked = resources(machine, devices=devices)
    assert asked.fit_gpus(wildcards(scan="s")) == gpus
    assert asked.fit_memory_mb(wildcards(scan="s"), 1) == (8000 if gpus else 16000)


def test_fits_at_once_take_more_memory_of_the_host():
    denoising = Denoising({}, {}, {"fits": 4, "fits_at_once": 4}, ("cuda:0", "cuda:1") * 2)
    asked = dataclasses.replace(resources(CLUSTER), denoising=denoising)
    assert asked.fit_gpus(wildcards(scan="s")) == 4
    assert asked.fit_memory_mb(wildcards(scan="s"), 1) == 8000 + 3 * 3000


def test_memory_on_a_cpu_is_the_engines_own_plan():
    network = check_settings("msdnet", NETWORK)
    plan = BACKENDS["fourier"].predict_bytes(network, WINDOW, "float32")
    found = resources().prediction_memory_mb(OF_A, 1)
    # Base, the plan within its share of the memory, and about 14 bytes a voxel beside it.
    assert found == pytest.approx(
        1500 + (plan + 4 * VOXELS) / 0.85 / MB + 15 * VOXELS / MB, rel=0.03
    )


@pytest.mark.parametrize("name", [n for n in BACKENDS if not n.startswith("gpu-")])
def test_each_backends_plan_counts(name):
    network = check_settings("msdnet", NETWORK)
    plan = BACKENDS[name].predict_bytes(network, WINDOW, "float32")
    settings = config().settings["prediction"] | {"backend": name}
    asked = memory.evaluation_bytes("msdnet", NETWORK, settings, WINDOW)
    assert asked == round((plan + 4 * VOXELS) / 0.85)


def test_a_precision_that_the_backend_lacks_is_for_the_job_to_refuse():
    settings = config().settings["prediction"]
    whole = memory.evaluation_bytes("msdnet", NETWORK, settings | {"backend": "stencil"}, WINDOW)
    other = settings | {"backend": "stencil", "precision": "float16"}
    assert memory.evaluation_bytes("msdnet", NETWORK, other, WINDOW) == whole


def test_an_exported_network_declares_its_memory():
    found = resources().prediction_memory_mb(OF_B, 1)
    padded = math.prod(-(-n // 8) * 8 for n in WINDOW)
    declared = EXPORTED["bytes_per_voxel"] * padded
    assert found == pytest.approx(1500 + declared / 0.85 / MB + 20 * VOXELS / MB, rel=0.03)
    assert declared / MB > 1000


def test_on_a_gpu_the_host_holds_windows_and_results_alone():
    on_gpu = resources(CLUSTER, prediction={"device": "cuda"})
    a, b = (on_gpu.prediction_memory_mb(w, 1) for w in (OF_A, OF_B))
    assert a == b == 4000 + 64 + (14 * VOXELS + 6 * math.prod(TILE)) // MB
    assert a < 4256 + 20 * VOXELS / MB


def test_memory_and_time_grow_with_each_try():
    asked = resources(training={"n": {}})
    training = wildcards(trained="n")
    for function, names in (
        (asked.cut_memory_mb, OF_A),
        (asked.stitch_memory_mb, OF_A),
        (asked.level_memory_mb, OF_A),
        (asked.prediction_memory_mb, OF_A),
        (asked.batch_memory_mb, OF_A),
        (asked.surroundings_memory_mb, OF_A),
        (asked.training_memory_mb, training),
        (asked.fit_memory_mb, wildcards(scan="s")),
        (asked.prediction_minutes, OF_A),
        (asked.batch_minutes, OF_A),
    ):
        assert function(names, 3) == 3 * function(names, 1) > 0, function


def test_a_batch_holds_a_tile_before_and_one_behind():
    asked = resources()
    more = asked.batch_memory_mb(OF_A, 1) - asked.prediction_memory_mb(OF_A, 1)
    assert more == ((2 + 4) * VOXELS + 4 * math.prod(TILE)) // MB


def test_a_window_is_never_larger_than_the_volume():
    small = resources(volumes=[volume(shape=(10, 10, 10))], tiles={"halo_vox": "auto"})
    assert small.cut_memory_mb(OF_A, 1) == 500
    assert small.surroundings_memory_mb(OF_A, 1) < 1510


def test_surroundings_are_those_that_the_network_sees():
    asked = resources()
    edge = 48 + 2 * 19
    expected = memory.evaluation_bytes(
        "msdnet", NETWORK, asked.config.settings["prediction"], (edge, edge, edge)
    )
    found = asked.surroundings_memory_mb(OF_A, 1) - 1500
    assert expected / MB < found < expected / MB + 20 * edge**3 / MB
    assert all(edge < n for n in SHAPE)


def test_minutes_of_tiles_that_share_a_job():
    # 100 maps, each of 27 weights on all before it, at 10 billion operations a second.
    slow = 54 * 100**2 / 2 * VOXELS / 1e10 / 60
    assert slow > 0.5
    assert resources().prediction_minutes(OF_B, 1) == 30 + math.ceil(slow)
    assert resources(tiles={"per_job": 3}).batch_minutes(OF_B, 1) == 30 + math.ceil(3 * slow)
    flipped = resources(prediction={"flips": True})
    assert flipped.prediction_minutes(OF_B, 1) == 30 + math.ceil(8 * slow)


def training_mb(**settings):
    return resources(training={"n": {"settings": {"device": "cpu"} | settings}}).training_memory_mb(
        wildcards(trained="n"), 1
    )


def test_a_training_asks_for_its_patch_batch_and_network():
    small = training_mb(network=NETWORK)
    assert training_mb(network=NETWORK, patch_vox=[160, 160, 160]) > small
    assert training_mb(network=NETWORK, batch=4) > small
    assert training_mb(network=NETWORK | {"depth": 50}) > small
    on_gpu = resources(CLUSTER, training={"n": {"settings": {"network": NETWORK}}})
    assert on_gpu.training_memory_mb(wildcards(trained="n"), 1) == 6000


def test_a_fine_tuning_asks_for_the_network_that_it_starts_from():
    start = str(ROOT / "models" / "phantom.safetensors")
    card = read_card(start)
    named = memory.training_bytes({"network": {"kind": card.network, **card.settings}})
    assert memory.training_bytes({}, start) == named != memory.training_bytes({})
    assert memory.training_bytes({}, "models/not-yet.safetensors") == memory.training_bytes({})


def test_wrong_settings_of_a_training_are_for_the_training_to_name():
    base = training_mb(network={"depth": 0})
    assert base == training_mb(network={"layers": 3}) == training_mb(batch="many") == 2000


def test_the_patch_that_is_assumed_is_the_trainings_default():
    assert TrainingSettings(cell_diameter_um=1).patch_vox == memory._TRAINING_PATCH_VOX
    assert np.prod(memory._TRAINING_PATCH_VOX) > 0


def test_planning_imports_neither_torch_nor_snakemake():
    code = (
        "import sys; import voxmill.workflow.memory as memory; import voxmill.workflow.workflow; "
        "from voxmill.engine.backends import BACKENDS; "
        "from voxmill.config.networks import MSDNetSettings as S; "
        "[b.predict_bytes(S(depth=2), (9, 9, 9), 'float32') for n, b in BACKENDS.items() "
        "if not n.startswith('gpu-')]; memory.training_bytes({}); "
        "print([m for m in ('torch', 'snakemake', 'pandas', 'skimage') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert run.stdout.strip() == "[]"
