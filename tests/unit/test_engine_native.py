"""The native sources compile without warnings and run without a finding of the sanitizers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from native.sanitized import objects
from test_engine_backends import random_network, random_volume

from voxmill.engine import build, fourier

NATIVE = Path(fourier.__file__).parent / "native"
HERE = Path(__file__).parent / "native"
ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path.stem for path in NATIVE.glob("*.cpp"))
WARNINGS = ("-Wall", "-Wextra", "-Werror")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
CASES = [
    ({"depth": 12, "width": 2, "inputs": 2, "outputs": 3}, (9, 15, 11)),
    ({"depth": 18}, (7, 17, 33)),  # more than one panel and part, one voxel beyond whole vectors
    ({"depth": 7, "width": 3, "dilations": (1, 2, 4)}, (1, 12, 18)),  # a single plane
    ({"depth": 6, "outputs": 2}, (5, 7, 3)),  # smaller than most dilations
    ({"depth": 1, "width": 5, "inputs": 3, "dilations": (10,)}, (12, 1, 12)),
]


@pytest.fixture(scope="module")
def compiler():
    path = build.compiler()
    if path is None:
        pytest.skip("there is no C++ compiler (g++)")
    return path


def compiled(compiler, source, path, *flags):
    base = [flag for flag in build._FLAGS if not flag.startswith("-O")]
    source = str(NATIVE / f"{source}.cpp")
    command = [compiler, *base, *build._QUIET, *flags, source, "-o", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return path


@pytest.mark.parametrize("source", SOURCES)
def test_no_warnings(compiler, source, tmp_path):
    compiled(compiler, source, tmp_path / "library.so", "-O1", *WARNINGS)


@pytest.fixture(scope="module")
def asan(compiler):
    """The runtime of AddressSanitizer, which a process must load before anything else."""
    command = [compiler, "-print-file-name=libasan.so"]
    name = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(name).is_absolute():
        pytest.skip(f"{compiler} has no AddressSanitizer (libasan)")
    return name


def run_sanitized(asan, *arguments):
    options = {
        "LD_PRELOAD": asan,
        "ASAN_OPTIONS": "detect_leaks=0",  # Python frees little at its end
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=os.environ | options,
        capture_output=True,
        text=True,
    )


def test_no_finding_of_the_sanitizers_and_the_numbers_of_the_reference(compiler, asan, tmp_path):
    """AddressSanitizer and UBSan end the process at their first finding."""
    for source in SOURCES:
        compiled(compiler, source, tmp_path / f"{source}.so", "-O0", *SANITIZERS)
    expected = [reference(tmp_path / f"case{i}", *case) for i, case in enumerate(CASES)]
    done = run_sanitized(asan, HERE / "sanitized.py", tmp_path)
    assert done.returncode == 0, done.stderr
    for number, (logits, gradient, volume_gradient) in enumerate(expected):
        found = np.load(tmp_path / f"found{number}.npz")
        for name, tolerance in (("float32", 1e-3), ("float64", 1e-6)):
            near(found[f"logits_{name}"], logits, tolerance)
            near(found[f"gradient_{name}"], gradient, tolerance)
            near(found[f"volume_gradient_{name}"], volume_gradient, tolerance)
        near(found["logits_shared16"], logits, 0.03)
        near(found["stencil"], 1 / (1 + np.exp(-logits)), 1e-4)
    found = np.load(tmp_path / "objects.npz")
    for name, expected_labels in objects().items():
        np.testing.assert_array_equal(found[name], expected_labels)


def reference(path, settings, shape):
    """Write a case for the child; logits and gradients of PyTorch in float64."""
    network = random_network(3, **settings)
    volume = random_volume(network.settings.inputs, shape, 4)
    np.savez(path, parameters=fourier.flat_parameters(network), volume=volume)
    path.with_suffix(".json").write_text(json.dumps(settings))
    batch = torch.from_numpy(volume).double()[None].requires_grad_()
    network = network.double()
    logits = network(batch)
    logits.sum().backward()
    gradient = torch.cat([tensor.grad.reshape(-1) for tensor in fourier.tensors(network)])
    return logits[0].detach().numpy(), gradient.numpy(), batch.grad[0].numpy()


def near(found, expected, tolerance):
    np.testing.assert_allclose(
        found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max()
    )


def test_the_sanitizers_see_a_read_beyond_an_array(compiler, asan, tmp_path):
    """So that no finding above means something: under ASan each `Storage` is its own block."""
    (tmp_path / "beyond.cpp").write_text(
        '#include "storage.hpp"\n'
        'extern "C" float read(int at) { voxmill::Storage<float> a(10); return a.get()[at]; }\n'
    )
    path = tmp_path / "beyond.so"
    compiled(compiler, tmp_path / "beyond", path, "-O0", f"-I{NATIVE}", *SANITIZERS)
    done = run_sanitized(asan, "-c", f"import ctypes; ctypes.CDLL('{path}').read(10)")
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
