"""The engines for GPUs: their kernels in Triton's interpreter, and on a GPU if there is one."""

import os
import subprocess
import sys
import textwrap
import weakref

import numpy as np
import pytest
import torch
from test_engine_backends import random_network, random_volume
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from voxmill.config.networks import MSDNetSettings
from voxmill.engine import gpu_direct, gpu_fourier, gpu_spectra
from voxmill.engine.backends import BACKENDS, choose, forward
from voxmill.runtime.errors import VoxmillError

ENGINES = [gpu_fourier, gpu_direct]
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
# The largest error of each precision, in probability.
ALLOWED = {"float32": 1e-4, "float16": 2e-3}


@pytest.fixture
def interpreter():
    """Skips where kernels can't run on the CPU."""
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("Triton compiles for a GPU here: TRITON_INTERPRET=1 asks for its interpreter")


def reference(network, volume):
    with torch.no_grad():
        return network(volume[None])[0]


SHARED = [
    ({"depth": 9, "dilations": (1, 2)}, (2, 3, 4)),  # more layers than the Fourier panel has
    ({"depth": 5, "width": 2, "inputs": 2, "outputs": 3, "dilations": (1, 3, 2)}, (3, 2, 5)),
    ({"depth": 3, "width": 3, "dilations": (2, 9)}, (3, 4, 5)),  # a dilation beyond the box
    ({"depth": 3, "inputs": 3, "dilations": (2, 1)}, (1, 5, 6)),  # a single plane
    ({"depth": 2, "width": 20, "dilations": (1,)}, (1, 2, 3)),  # more maps than a program sums
    ({"depth": 1}, (3, 2, 2)),
]
CASES = [(engine, *case) for engine in ENGINES for case in SHARED] + [
    (gpu_direct, {"depth": 17, "dilations": (1, 2, 3)}, (5, 4, 7)),  # two panels, two programs
    (gpu_direct, {"depth": 2, "inputs": 17, "dilations": (1,)}, (3, 3, 3)),
]


@pytest.mark.parametrize(("engine", "settings", "shape"), CASES)
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_kernels_give_the_numbers_of_the_reference(interpreter, engine, settings, shape, precision):
    network = random_network(**settings)
    volume = random_volume(network.settings.inputs, shape)
    expected = reference(network, torch.from_numpy(volume)).sigmoid().numpy()
    found = engine.run(network, volume, "cpu", precision, 1)
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    assert np.abs(expected - 0.5).max() > 0.01, "the case would not show a difference"
    np.testing.assert_allclose(found, expected, atol=ALLOWED[precision])


def test_slabs_of_lines_give_the_whole(interpreter, monkeypatch):
    network = random_network(depth=2, width=2, dilations=(1, 2))
    volume = torch.from_numpy(random_volume(1, (2, 3, 5)))
    monkeypatch.setattr(gpu_spectra, "TABLE_BYTES", 2**14)
    layout = gpu_spectra.SpectrumSizes(network.settings, (2, 3, 5), "float32")
    assert layout.table_lines(4, 1) < layout.lines == 3 * 5
    found = gpu_fourier.logits(network, volume)
    np.testing.assert_allclose(found, reference(network, volume), atol=1e-5)


def test_float16_spectra_do_not_overflow(interpreter):
    """Frequency zero of this volume is 20 times the largest float16; its signal is 1e-3 of it."""
    network = random_network(depth=2, dilations=(1, 2))
    volume = 2000.0 + 2000.0 * torch.from_numpy(random_volume(1, (5, 6, 12)))
    assert volume.sum() > 10 * torch.finfo(torch.float16).max
    expected = reference(network, volume)
    found = gpu_fourier.logits(network, volume, "float16")
    np.testing.assert_allclose(found, expected, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_nan_is_not_hidden(interpreter, engine, precision):
    volume = torch.zeros(1, 2, 3, 4)
    volume[0, 1, 1, 1] = torch.nan
    network = random_network(depth=2, dilations=(1,))
    assert engine.logits(network, volume, precision).isnan().any()


@pytest.mark.parametrize("engine", ENGINES)
def test_maps_that_are_zero_everywhere(interpreter, engine):
    network = random_network(depth=3, dilations=(1,), bias=0.0)
    volume = torch.zeros(1, 2, 3, 4)
    assert (engine.logits(network, volume, "float16") == 0).all()


class Tally(TorchDispatchMode):
    """The largest number of bytes that tensors hold at one time."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key not in self.seen:
            self.seen.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key, size):
        self.seen.discard(key)
        self.now -= size


class NoKernel:
    """Stands in for a kernel where its tensors alone matter."""

    def __getitem__(self, grid):
        return lambda *args, **kwargs: None


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({"depth": 30}, (60, 64, 68)),
        ({"depth": 12, "width": 3, "inputs": 2, "outputs": 2}, (64, 64, 64)),
        ({"depth": 100}, (28, 28, 28)),
    ],
)
def test_predicted_bytes_are_those_of_the_tensors(
    monkeypatch, interpreter, engine, precision, settings, shape
):
    from voxmill.engine import triton_direct, triton_fourier

    for module, names in (
        (triton_fourier, ("kernel_table", "pull", "activate", "store_spectrum")),
        (triton_direct, ("push", "finish")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, NoKernel())
    network = random_network(**settings)
    weights = sum(p.nbytes for p in network.parameters())
    with Tally() as tally, torch.no_grad():
        engine.logits(network, torch.zeros(network.settings.inputs, *shape), precision)
    counted = tally.most - weights
    predicted = engine.predict_bytes(network.settings, shape, precision)
    assert 0.85 * counted <= predicted <= 1.15 * counted, (counted / 1e6, predicted / 1e6)


@pytest.mark.parametrize("name", ["torch", "torch-fast"])
@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({"depth": 30}, (20, 24, 18)),
        ({"depth": 12, "width": 3, "inputs": 2, "outputs": 2}, (24, 20, 18)),
    ],
)
def test_predicted_bytes_of_torch_are_those_of_the_tensors(name, settings, shape):
    """On the CPU: the tensors are the same, and what oneDNN allocates by itself is not counted."""
    network = random_network(**settings)
    with Tally() as tally, torch.no_grad():
        volume = torch.zeros(network.settings.inputs, *shape)
        BACKENDS[name].logits(network, volume, "float32").sigmoid_()
    weights = sum(p.nbytes for p in network.parameters())
    predicted = BACKENDS[name].predict_bytes(network.settings, shape, "float32", "cuda")
    assert tally.most - 2 * weights <= predicted <= 1.1 * tally.most, (tally.most, predicted)


COMPILE = """
    import json
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from voxmill.engine import triton_direct, triton_fourier
    from voxmill.engine.gpu import DOT_PRECISION

    FLOATS = {
        "sums", "cosine_x", "sine_x", "cosine_y", "sine_y", "cosine_z", "sine_z", "scales", "real",
        "logits", "bias", "final_weights", "spectrum", "unit",
    }
    STORED = {"spectra", "table", "panel"}

    def tensor_instructions(kernel, stored, **constants):
        def kind(name):
            if name in constants:
                return "constexpr"
            if name in STORED or (name == "weights" and "panel" in kernel.arg_names):
                return "*" + stored
            if name in FLOATS or name == "weights":
                return "*fp32"
            if name in ("phases", "slots"):
                return "*i32"
            return "fp32" if name == "scale" else "i32"

        signature = {name: kind(name) for name in kernel.arg_names}
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        done = triton.compile(source, target=GPUTarget("cuda", 90, 32))
        assert done.asm["cubin"]
        return done.asm["ptx"].count("mma")

    rows = {"ROWS": 16, "COLUMNS": 128}
    tensor_instructions(triton_fourier.activate, "fp32", **rows)
    for stored, dot in (("fp32", "float32"), ("fp16", "float16")):
        dot = {"PRECISION": DOT_PRECISION[dot]}
        tensor_instructions(triton_fourier.store_spectrum, stored, **rows)
        tensor_instructions(triton_fourier.kernel_table, stored, LINES=32, SOURCES=16)
        pull = {"TARGETS": 8, "COLUMNS": 128, "SOURCES": 16, "ADD": False}
        assert tensor_instructions(triton_fourier.pull, stored, **pull, **dot)
        block = {"TAPS": 27, "VOXELS": 128, "TARGETS": 16}
        assert tensor_instructions(triton_direct.push, stored, **block, **dot)
        assert tensor_instructions(triton_direct.finish, stored, PUSHED=True, **block, **dot)
    print("compiled")
"""


def test_kernels_compile_for_a_gpu(tmp_path):
    """For an H100, by Triton's own compiler and assembler, which need no GPU."""
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", textwrap.dedent(COMPILE)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stdout == "compiled\n", done.stderr[-2000:]


# --- the registry ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpu-fourier", "gpu-direct"])
def test_on_the_cpu_they_say_no(name):
    network = random_network(depth=1)
    with pytest.raises(VoxmillError, match=f"{name} can't be used here: it runs on cuda, not on c"):
        choose(name, network, "cpu", "float32", (8, 8, 8))
    assert "not Conv3d" in BACKENDS[name].available(torch.nn.Conv3d(1, 1, 1), "cuda")
    if not torch.cuda.is_available():
        assert BACKENDS[name].available(network, "cuda:0") == "there is no CUDA device for cuda:0"


def test_without_triton_plain_torch_is_chosen_with_one_reason(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("triton", "voxmill.engine.triton_fourier", "voxmill.engine.triton_direct"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("torch-fast", "openvino", "onnxruntime"):
        monkeypatch.delitem(BACKENDS, name)
    caplog.set_level("INFO")
    assert choose("auto", random_network(depth=1), "cuda", "float16", (8, 8, 8)).name == "torch"
    assert "not gpu-fourier: Triton can't be imported (ModuleNotFoundError" in caplog.text


# --- on a GPU ----------------------------------------------------------------------------------


@pytest.mark.gpu
@CUDA
@pytest.mark.parametrize("name", ["gpu-fourier", "gpu-direct"])
@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({"depth": 100}, (64, 70, 61)),
        ({"depth": 30}, (40, 33, 47)),
        *SHARED,
    ],
)
def test_gpu_agrees_with_the_reference(name, precision, settings, shape):
    network = random_network(**settings)
    if reason := BACKENDS[name].available(network, "cuda"):
        pytest.skip(reason)
    volume = random_volume(network.settings.inputs, shape)
    expected = forward(network, volume, backend="torch")
    found = forward(network, volume, backend=name, device="cuda", precision=precision)
    allowed = ALLOWED[precision] if precision == "float32" else 2e-2
    np.testing.assert_allclose(found, expected, atol=allowed)


@pytest.mark.gpu
@CUDA
@pytest.mark.parametrize("name", ["gpu-fourier", "gpu-direct"])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_gpu_peak_is_near_the_predicted(name, precision):
    settings, shape = MSDNetSettings(depth=100), (192, 200, 208)
    network = random_network(depth=100)
    if reason := BACKENDS[name].available(network, "cuda"):
        pytest.skip(reason)
    volume = random_volume(1, shape)
    forward(network, volume[:, :8, :8, :8], backend=name, device="cuda", precision=precision)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    forward(network, volume, backend=name, device="cuda", precision=precision)
    measured = torch.cuda.max_memory_allocated() - before
    predicted = BACKENDS[name].predict_bytes(settings, shape, precision)
    assert 0.85 * measured <= predicted <= 1.15 * measured, (measured / 1e6, predicted / 1e6)


@pytest.mark.gpu
@CUDA
def test_auto_on_a_gpu_is_one_of_the_tried(caplog):
    caplog.set_level("INFO")
    chosen = choose("auto", random_network(depth=30), "cuda", "float32", (96, 96, 96))
    assert chosen.name in ("gpu-fourier", "gpu-direct", "torch-fast", "torch")
    assert "by trials of up to" in caplog.text
