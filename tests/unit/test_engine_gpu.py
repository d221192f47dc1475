"""The engines for GPUs: their kernels in Triton's interpreter, and on a GPU if there is one."""

import os
import subprocess
import sys
import textwrap
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_engine_backends import random_network, random_volume
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from voxmill.config.networks import MSDNetSettings
from voxmill.engine import gpu_direct, gpu_fourier, gpu_rows, gpu_spectra
from voxmill.engine.backends import BACKENDS, choose, forward
from voxmill.engine.torch_memory import IMPOSSIBLE
from voxmill.runtime.errors import VoxmillError

ENGINES = [gpu_fourier, gpu_direct]
FUSED = SimpleNamespace(
    run=gpu_fourier.fused_run,
    logits=gpu_fourier.fused_logits,
    predict_bytes=gpu_fourier.fused_predict_bytes,
)
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


@pytest.mark.parametrize(
    ("settings", "shape", "precision", "allowed"),
    [
        (*SHARED[5], "float32", 1e-5),
        ({"depth": 2, "width": 2, "inputs": 2, "outputs": 2}, (2, 2, 3), "float16", 1e-3),
    ],
)
def test_the_fused_pass_gives_the_numbers_of_the_reference(
    interpreter, settings, shape, precision, allowed
):
    network = random_network(**settings)
    volume = torch.from_numpy(random_volume(network.settings.inputs, shape))
    expected = reference(network, volume)
    found = gpu_fourier.fused_logits(network, volume, precision)
    assert (found - expected).abs().max() <= allowed * expected.abs().max()


@pytest.mark.parametrize(
    ("factors", "box", "padded"),
    [
        ((3, 7), (2, 2, 15), (2, 3)),
        ((18, 29), (2, 3, 500), (3, 4)),
        ((4, 10), (3, 3, 40), (3, 3)),
        ((9, 58), (1, 2, 512), (2, 2)),  # both sums over n2 / 2 and its mirror
        ((1, 1), (2, 2, 1), (2, 3)),
    ],
)
@pytest.mark.parametrize(("rounded", "allowed"), [(False, 1e-6), (True, 1e-3)])
def test_a_row_there_and_back(interpreter, factors, box, padded, rounded, allowed):
    """Against numpy in float64; products of TensorFloat-32 numbers lose three digits."""
    from voxmill.engine import triton_rows

    generator = np.random.default_rng(0)
    length, (z, y, x) = int(np.prod(factors)), box
    spectrum = np.fft.rfft(generator.normal(0.5, 1.0, (*padded, length))).astype(np.complex64)
    voxels = np.maximum(np.fft.irfft(spectrum, length) + 0.1, 0.0)
    inside = np.zeros_like(voxels)
    inside[:z, :y, :x] = voxels[:z, :y, :x]
    shape = gpu_rows.shape(factors)
    found = torch.from_numpy(spectrum)
    logits = torch.ones(2, *box)
    weights = torch.tensor([[1.0, 9.0], [-2.0, 9.0]])
    for to_logits in (True, False):
        triton_rows.activate_rows[(-(-int(np.prod(padded)) // shape["ROWS"]),)](
            torch.view_as_real(found), logits, torch.tensor([0.1]), weights,
            gpu_rows.tables(factors, torch.device("cpu")), 1 / length, *factors,
            int(np.prod(padded)), padded[1], length // 2 + 1, *box, int(np.prod(box)), 2, 2,
            ACTIVATE=True, TO_LOGITS=to_logits, ROUND=rounded, **shape,
        )  # fmt: skip
    most = np.abs(voxels).max()
    for output, weight in zip(logits, (1.0, -2.0), strict=True):
        np.testing.assert_allclose(
            output, 1.0 + weight * inside[:z, :y, :x], atol=4 * allowed * most
        )
    expected = np.fft.rfft(inside)
    np.testing.assert_allclose(found, expected, atol=allowed * np.abs(expected).max())


def test_rows_of_any_length_are_split():
    for least in range(1, 2017):
        first, second = gpu_rows.split_length(least)
        assert least <= first * second <= max(1.1 * least, least + 4)
        edges = gpu_rows.shape((first, second))
        assert first <= edges["N1"] <= 32 and second <= 2 * edges["K2"] - 1 <= 63
        assert edges["N1"] * edges["K2"] * edges["ROWS"] <= 2048


def test_rows_that_are_too_long_are_cut():
    assert gpu_rows.split_length(2017) is None
    settings = MSDNetSettings(depth=2, dilations=(1,))
    assert BACKENDS["gpu-fused"].predict_bytes(settings, (4, 4, 2016), "float16") == IMPOSSIBLE
    assert BACKENDS["gpu-fused"].predict_bytes(settings, (4, 4, 2015), "float16") < 1e7


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


@pytest.mark.parametrize("engine", [*ENGINES, FUSED])
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


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize(
    ("engine", "settings", "shape"),
    [
        (engine, *case)
        for engine in ENGINES
        for case in (
            ({"depth": 30}, (60, 64, 68)),
            ({"depth": 12, "width": 3, "inputs": 2, "outputs": 2}, (64, 64, 64)),
            ({"depth": 100}, (28, 28, 28)),
        )
    ]
    + [(FUSED, {"depth": 12, "width": 3, "inputs": 2, "outputs": 2}, (64, 64, 64))],
)
def test_predicted_bytes_are_those_of_the_tensors(
    monkeypatch, interpreter, engine, precision, settings, shape
):
    from voxmill.engine import triton_direct, triton_fourier, triton_rows

    for module, names in (
        (triton_rows, ("activate_rows",)),
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
    from voxmill.engine import gpu_rows, triton_direct, triton_fourier, triton_rows
    from voxmill.engine.gpu import DOT_PRECISION

    FLOATS = {
        "sums", "cosine_x", "sine_x", "cosine_y", "sine_y", "cosine_z", "sine_z", "scales", "real",
        "logits", "bias", "final_weights", "spectrum", "unit", "tables",
    }
    STORED = {"spectra", "table", "panel"}

    def tensor_instructions(kernel, stored, num_warps=4, **constants):
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
        options = {"num_warps": num_warps}
        done = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
        assert done.asm["cubin"]
        return done.asm["ptx"].count("mma")

    rows = {"ROWS": 16, "COLUMNS": 128}
    tensor_instructions(triton_fourier.activate, "fp32", **rows)
    row = {"ACTIVATE": True, "ROUND": True, **gpu_rows.shape((16, 31))}
    for to_logits in (False, True):
        assert tensor_instructions(triton_rows.activate_rows, "", TO_LOGITS=to_logits, **row)
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
    for name in (
        "triton",
        "voxmill.engine.triton_fourier",
        "voxmill.engine.triton_direct",
        "voxmill.engine.triton_rows",
    ):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("torch-fast", "openvino", "onnxruntime"):
        monkeypatch.delitem(BACKENDS, name)
    caplog.set_level("INFO")
    assert choose("auto", random_network(depth=1), "cuda", "float16", (8, 8, 8)).name == "torch"
    assert "not gpu-fourier: Triton can't be imported (ModuleNotFoundError" in caplog.text


# --- on a GPU ----------------------------------------------------------------------------------

ON_A_GPU = [
    (name, precision)
    for name in ("gpu-fourier", "gpu-fused", "gpu-direct")
    for precision in BACKENDS[name].precisions
]


@pytest.mark.gpu
@CUDA
@pytest.mark.parametrize(("name", "precision"), ON_A_GPU)
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
@pytest.mark.parametrize(("name", "precision"), ON_A_GPU)
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
    assert chosen.name in ("gpu-fourier", "gpu-fused", "gpu-direct", "torch-fast", "torch")
    assert "by trials of up to" in caplog.text
