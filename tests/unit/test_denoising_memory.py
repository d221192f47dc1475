"""The memory plan against the memory of a real iteration."""

import dataclasses

import pytest
import torch

from voxmill.config.denoising import DenoiseSettings
from voxmill.denoising import memory
from voxmill.denoising.fitting import Fit
from voxmill.denoising.memory import MemoryPlan, StorageCounter, check_memory, plan_memory
from voxmill.denoising.placement import place_units, unit_names
from voxmill.runtime.errors import VoxmillError

torch.set_num_threads(1)
CPU = torch.device("cpu")
SETTINGS = DenoiseSettings.from_dict(
    {
        "network": {"inputs": 4, "down": [8, 8], "up": [8, 8], "skip": [4, 4]},
        "input": "noise",
        "stop": {"rule": "fixed"},
    }
)
SHAPE = (13, 12, 14)


def counted(settings):
    """Peak of the second of two iterations on the CPU, counted in the same way but with data."""
    fit = Fit(torch.rand(SHAPE), settings, place_units(unit_names(settings), [CPU]), level=0.1)
    fit.step()
    with StorageCounter() as counter:
        fit.step()
    return counter.peak[CPU]


def test_counter_by_hand():
    with StorageCounter() as counter:
        first = torch.zeros(1000)
        view = first[:10]
        assert counter.alive[CPU] == 4000
        second = first + 1
        assert counter.alive[CPU] == 8000
        del first
        assert counter.alive[CPU] == 8000  # the view keeps the storage
        del view, second
        assert counter.alive[CPU] == 0
        assert counter.peak[CPU] == 8000
        counter.reset_peak()
        assert counter.peak[CPU] == 0


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"precision": "bfloat16"},
        {"precision": "bfloat16", "checkpointing": True},
        {"input": "scan", "mask_fraction": 0.1, "channels_last": True},
    ],
)
def test_plan_without_data_agrees_with_a_real_iteration(changes):
    settings = dataclasses.replace(SETTINGS, **changes)
    planned = plan_memory(SHAPE, settings, ["cpu"])
    # The count starts after the first iteration: it lacks weights, optimiser and volumes.
    real = counted(settings) + planned.resting_bytes[0]
    assert planned.peak_bytes[0] == pytest.approx(real, rel=0.1)


def test_half_precision_and_checkpointing_save_memory_and_larger_volumes_need_more():
    def peak(shape=SHAPE, **changes):
        planned = plan_memory(shape, dataclasses.replace(SETTINGS, **changes), ["cuda:0"])
        return planned.peak_bytes[0]

    full, half = peak(), peak(precision="float16")
    assert 0.45 * full < half < 0.75 * full
    assert peak(precision="float16", checkpointing=True) < 0.9 * half
    assert peak((26, 12, 14)) == pytest.approx(2 * full, rel=0.1)


def test_resting_bytes_hold_weights_and_adam():
    planned = plan_memory(SHAPE, SETTINGS, ["cuda:0"])
    weights = 4 * SETTINGS.network.parameter_count()
    voxels = 13 * 12 * 14
    # After the first iteration: weights, gradients, two moments; target, average, best and 4
    # random channels of float32, a byte per held-out flag.
    expected = 4 * weights + 7 * 4 * voxels + voxels
    assert planned.resting_bytes[0] == pytest.approx(expected, rel=0.02)


def test_automatic_cut_is_the_best_of_all():
    devices = ["cuda:0", "cuda:1"]
    automatic = plan_memory(SHAPE, SETTINGS, devices)
    single = plan_memory(SHAPE, SETTINGS, ["cuda:0"])
    every = [
        plan_memory(SHAPE, dataclasses.replace(SETTINGS, cut=unit), devices)
        for unit in unit_names(SETTINGS)[1:]
    ]
    assert max(automatic.peak_bytes) == min(max(plan.peak_bytes) for plan in every)
    assert max(automatic.peak_bytes) < 0.8 * single.peak_bytes[0]
    assert automatic.devices == ("cuda:0", "cuda:1")
    # The decoder needs more than half of the memory.
    decoder = plan_memory(SHAPE, dataclasses.replace(SETTINGS, cut="decoder"), devices)
    assert decoder.cut == "merge1"
    assert decoder.peak_bytes[1] > decoder.peak_bytes[0]


def test_plan_reads_as_a_line():
    plan = MemoryPlan(("cuda:0", "cuda:1"), "up0", (3 * 2**30, 2**29), (2**30, 0))
    assert str(plan) == (
        "memory plan: cuda:0: 3.00 GiB at most, 1.00 GiB at rest; "
        "cuda:1: 0.50 GiB at most, 0.00 GiB at rest; cut before up0"
    )


@pytest.mark.parametrize(
    ("name", "remedy"), [("cpu", "denoise_scan:mem_mb"), ("cuda:0", "two devices")]
)
def test_full_device_is_an_error(monkeypatch, caplog, name, remedy):
    monkeypatch.setattr(memory, "free_bytes", {name: 2**30}.__getitem__)
    device = torch.device(name)
    margin = memory.MARGIN[device.type]
    with caplog.at_level("INFO"):
        check_memory(MemoryPlan((name,), "", (int(2**30 / margin),), (0,)), [device])
    assert f"memory plan: {name}: {1 / margin:.2f} GiB at most" in caplog.text
    needed = {"cpu": "3.0", "cuda": "3.6"}[device.type]
    expected = rf"{name}: this fit needs {needed} GiB, 1.0 GiB are free\. .*{remedy}"
    with pytest.raises(VoxmillError, match=expected):
        check_memory(MemoryPlan((name,), "", (3 * 2**30,), (0,)), [device])


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        MemoryError(),
    ],
)
def test_out_of_memory_says_what_to_do(error):
    plan = MemoryPlan(("cuda:0", "cuda:1"), "up0", (2**30, 2**30), (0, 0))
    expected = (
        r"cuda:0, cuda:1: this fit ran out of memory beyond its plan .*1\.00 GiB.*two devices"
    )
    with pytest.raises(VoxmillError, match=expected) as told, memory.out_of_memory_told(plan):
        raise error
    assert told.value.__cause__ is error


def test_other_errors_of_a_fit_stay_as_they_are():
    plan = MemoryPlan(("cuda:0",), "", (2**30,), (0,))
    with pytest.raises(RuntimeError, match="illegal memory"), memory.out_of_memory_told(plan):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_plan_against_the_allocator_of_a_gpu(precision):
    network = dataclasses.replace(SETTINGS.network, down=(32, 32), up=(32, 32))
    settings = dataclasses.replace(SETTINGS, precision=precision, network=network)
    cuda, shape = torch.device("cuda", 0), (64, 64, 64)
    planned = plan_memory(shape, settings, [cuda]).peak_bytes[0]
    fit = Fit(torch.rand(shape), settings, place_units(unit_names(settings), [cuda]))
    fit.step()
    torch.cuda.reset_peak_memory_stats(cuda)
    fit.step()
    measured = torch.cuda.max_memory_allocated(cuda)
    # The workspace of the convolutions comes on top of the plan.
    assert 0.9 * planned < measured < 2 * planned
