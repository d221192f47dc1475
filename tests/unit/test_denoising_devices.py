"""Devices by name, precision, placement of units, and real passes on two devices."""

import contextlib
import dataclasses

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from voxmill.config.denoising import DenoiseSettings
from voxmill.denoising import devices as denoising_devices
from voxmill.denoising.devices import of_each_fit, resolve_devices, resolve_precision
from voxmill.denoising.fitting import Fit
from voxmill.denoising.placement import place_units, unit_names
from voxmill.runtime.devices import Claim
from voxmill.runtime.errors import VoxmillError

CPU, META = torch.device("cpu"), torch.device("meta")
# With tiny operations, threads wait for each other longer than they compute.
torch.set_num_threads(1)
SETTINGS = DenoiseSettings.from_dict(
    {
        "network": {"inputs": 3, "down": [4, 4], "up": [4, 4], "skip": [2, 2]},
        "iterations": 4,
        "input": "scan",
        "mask_fraction": 0.2,
        "input_noise": 0.01,
        "stop": {"warmup": 0},
    }
)
UNITS = unit_names(SETTINGS)
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def target():
    return torch.rand(6, 7, 8, generator=torch.Generator().manual_seed(3))


def losses(placement, settings=SETTINGS):
    fit = Fit(target(), settings, placement)
    return [fit.step()["loss"] for _ in range(settings.iterations)], fit


def test_units_before_the_cut_are_on_the_first_device():
    placed = place_units(UNITS, [CPU, META], "decoder")
    assert [u for u in UNITS if placed[u] == CPU] == ["skip0", "down0", "skip1", "down1"]
    assert placed["merge1"] == placed["head"] == META
    placed = place_units(UNITS, [CPU, META], "up0")
    assert [u for u in UNITS if placed[u] == META] == ["up0", "mix0", "head"]
    assert set(place_units(UNITS, [CPU]).values()) == {CPU}


@pytest.mark.parametrize("cut", ["down7", "skip0", "auto"])
def test_a_cut_must_name_a_unit_after_the_first(cut):
    with pytest.raises(VoxmillError, match=f"setting cut: expected .* found '{cut}'"):
        place_units(UNITS, [CPU, META], cut)


@pytest.mark.parametrize("cut", ["decoder", "down0", "up0", "head"])
def test_two_devices_that_are_the_same_give_the_numbers_of_one(cut):
    single, first = losses(place_units(UNITS, [CPU]))
    double, second = losses(place_units(UNITS, [CPU, CPU], cut))
    assert single == double
    assert torch.equal(first.average, second.average)


class _OneDeviceEach(TorchDispatchMode):
    """Checks that every operation but a copy has all its tensors on one device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, torch.Tensor)]
        # Tensors without dimensions, such as the optimiser's counts, may cross.
        devices = {t.device for t in tensors if t.dim()}
        if func.overloadpacket not in (torch.ops.aten._to_copy, torch.ops.aten.copy_):
            assert len(devices) <= 1, f"{func} mixes {devices}"
        return result


@pytest.mark.parametrize("cut", ["decoder", "down1", "merge0", "up0", "head"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_recorded_placement_of_modules_activations_gradients_and_optimiser(cut, checkpointing):
    """A real forward and backward pass on two different devices, as shapes without data."""
    placement = place_units(UNITS, [CPU, META], cut)
    recorded = {}
    with FakeTensorMode(), _OneDeviceEach():
        # The held-out rule picks voxels by value, which fake tensors do not have.
        fixed = dataclasses.replace(SETTINGS.stop, rule="fixed")
        fit = Fit(torch.empty(6, 7, 8), dataclasses.replace(SETTINGS, stop=fixed), placement)
        fit.network.checkpointed = checkpointing
        for name, unit in fit.network.units.items():
            unit.register_forward_hook(
                lambda m, inputs, out, name=name: recorded.update(
                    {name: [t.device for t in (*inputs, out) if isinstance(t, torch.Tensor)]}
                )
            )
        loss, output, _ = fit.loss(1)
        loss.backward()
        fit.stepper.optimiser.step()
        for name, unit in fit.network.units.items():
            assert set(recorded[name]) == {placement[name]}
            for weight in unit.parameters():
                state = fit.stepper.optimiser.state[weight]
                assert weight.device == weight.grad.device == placement[name]
                assert state["exp_avg"].device == state["exp_avg_sq"].device == placement[name]
        assert fit.channels.device == CPU
        assert {loss.device, output.device, fit.average.device, fit.target.device} == {META}


@pytest.mark.parametrize(
    ("names", "precision", "message"),
    [
        ([], "float32", "list of one or two devices, found"),
        ("cpu", "float32", "list of one or two devices, found 'cpu'"),
        (["cpu"] * 3, "float32", "list of one or two devices"),
        (["cpu", "cpu"], "float32", "cpu is named twice; name two GPUs"),
        (["gpu"], "float32", "expected auto, cpu, cuda:0, ..., found 'gpu'"),
        (["mps"], "float32", "expected auto, cpu, cuda:0, ..., found 'mps'"),
        (["cuda:99"], "float32", r"cuda:99 is not here: PyTorch .* sees \d+ CUDA device"),
        (["cpu"], "float16", "precision float16: the CPU has no fast arithmetic"),
    ],
)
def test_bad_devices(names, precision, message):
    with pytest.raises(VoxmillError, match=message):
        resolve_devices(names, precision)


def test_devices_of_fits_at_once():
    four = [torch.device("cuda", index) for index in range(4)]
    assert of_each_fit(four, 2) == [tuple(four[:2]), tuple(four[2:])]
    assert of_each_fit(four, 4) == [(device,) for device in four]
    assert of_each_fit(four[:2], 1) == [tuple(four[:2])]
    with pytest.raises(VoxmillError, match="one or two devices for each of 2 fits, found"):
        resolve_devices(["cuda:0", "cuda:1", "cuda:2"], "float32", 2)


def test_gpus_of_fits_at_once_are_held_together(monkeypatch):
    asked = {}

    @contextlib.contextmanager
    def claim(number, *others):
        asked["number"] = number
        yield Claim(tuple(f"cuda:{index}" for index in range(number)), (), "node")

    monkeypatch.setattr(denoising_devices, "claim", claim)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    names = ["cuda:4", "cuda:5", "cuda:6", "cuda:7"]
    with denoising_devices.held_devices(names, "float32", at_once=2) as found:
        assert found == tuple(torch.device("cuda", index) for index in range(4))
    assert asked == {"number": 4}


def test_good_devices():
    assert resolve_devices(["cpu"], "bfloat16") == (CPU,)
    best = torch.device("cuda", 0) if torch.cuda.is_available() else CPU
    assert resolve_devices(["auto"]) == (best,)


@pytest.mark.gpu
@CUDA
@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_cuda_fit_is_close_to_the_cpu_and_repeats_exactly(precision):
    settings = dataclasses.replace(SETTINGS, precision=precision, mask_fraction=0.0, input="noise")
    settings = dataclasses.replace(settings, input_noise=0.0)
    cuda = torch.device("cuda", 0)
    first, _ = losses(place_units(UNITS, [cuda]), settings)
    again, _ = losses(place_units(UNITS, [cuda]), settings)
    reference, _ = losses(
        place_units(UNITS, [CPU]), dataclasses.replace(settings, precision="float32")
    )
    assert first == again
    assert first == pytest.approx(reference, rel=1e-3 if precision == "float32" else 5e-2)


@pytest.mark.gpu
@CUDA
def test_fit_split_between_the_cpu_and_a_gpu_gives_the_numbers_of_one():
    settings = dataclasses.replace(SETTINGS, mask_fraction=0.0, input="noise", input_noise=0.0)
    split, fit = losses(place_units(UNITS, [CPU, torch.device("cuda", 0)]), settings)
    single, _ = losses(place_units(UNITS, [CPU]), settings)
    assert split == pytest.approx(single, rel=1e-3)
    assert fit.average.device.type == "cuda"


@pytest.mark.parametrize(
    ("flags", "devices", "asked", "given"),
    [
        ("x86_64 fma avx2", ["cpu"], "auto", "float32"),
        ("x86_64 avx512f avx512_bf16", ["cpu"], "auto", "bfloat16"),
        ("x86_64 amx_bf16", ["cpu"], "auto", "bfloat16"),
        ("aarch64 asimd bf16", ["cpu"], "auto", "bfloat16"),
        ("x86_64 fma avx2", ["cuda:0"], "auto", "float16"),
        ("x86_64 fma avx2", ["cuda:0", "cuda:1"], "auto", "float16"),
        ("x86_64 avx512_bf16", ["cpu"], "float32", "float32"),
        ("x86_64 fma avx2", ["cuda:0"], "bfloat16", "bfloat16"),
    ],
)
def test_auto_is_the_fast_precision_of_the_device(
    monkeypatch, caplog, flags, devices, asked, given
):
    monkeypatch.setattr(denoising_devices, "cpu_flags", lambda: flags)
    assert resolve_precision(asked, [torch.device(name) for name in devices]) == given
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize(
    ("asked", "warned"), [("auto", True), ("bfloat16", True), ("float32", False)]
)
def test_a_cudnn_that_should_not_compute_in_half_precision(monkeypatch, caplog, asked, warned):
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    resolve_precision(asked, [torch.device("cuda:0")])
    assert ("cuDNN 9.10.2 computes 3D convolutions in half precision" in caplog.text) == warned


def test_bfloat16_on_a_cpu_without_it_is_kept_with_a_warning(monkeypatch, caplog):
    monkeypatch.setattr(denoising_devices, "cpu_flags", lambda: "x86_64 avx2")
    assert resolve_precision("bfloat16", [CPU]) == "bfloat16"
    assert "use `precision: auto` or float32" in caplog.text
