"""The native engine on another kind of CPU (aarch64), in an emulator."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit.test_engine_backends import random_network, random_volume
from voxmill.engine import fourier, transforms

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
NATIVE = Path(fourier.__file__).parent / "native"
HERE = Path(__file__).parent / "native"

pytestmark = pytest.mark.skipif(
    not (shutil.which(COMPILER) and shutil.which(EMULATOR)),
    reason=f"{COMPILER} and {EMULATOR} are not installed",
)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("foreign") / "foreign"
    flags = ["-std=c++17", "-O2", "-fopenmp", "-static", "-Wno-ignored-attributes"]
    source = str(HERE / "foreign.cpp")
    done = subprocess.run(
        [COMPILER, *flags, f"-I{NATIVE}", source, "-o", str(path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return path


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({"depth": 12, "width": 2, "inputs": 2, "outputs": 3}, (9, 15, 11)),
        ({"depth": 20}, (12, 17, 13)),
        ({"depth": 7, "width": 3, "dilations": (1, 2, 4)}, (1, 12, 18)),
    ],
)
def test_the_numbers_of_the_reference_on_aarch64(program, tmp_path, settings, shape):
    network = random_network(3, **settings)
    volume = random_volume(network.settings.inputs, shape, 4)
    parameters = fourier.flat_parameters(network)
    s = network.settings
    head = [s.inputs, s.outputs, s.depth, s.width, *shape, *transforms.lengths(s, shape)]
    head += [len(parameters), *(s.dilation(layer) for layer in range(s.depth))]
    content = np.array(head, np.int32).tobytes() + parameters.tobytes() + volume.tobytes()
    (tmp_path / "in").write_bytes(content)
    command = [EMULATOR, str(program), str(tmp_path / "in"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr

    logits = network(torch.from_numpy(volume)[None])[0]
    logits.sum().backward()
    expected = logits.detach().numpy().ravel()
    gradient = torch.cat([t.grad.reshape(-1) for t in fourier.tensors(network)]).numpy()
    found = np.fromfile(tmp_path / "out", np.float32)
    assert len(found) == 2 * len(expected) + len(gradient)
    full, shared, slope = np.split(found, [len(expected), 2 * len(expected)])
    np.testing.assert_allclose(full, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(shared, expected, rtol=0.03, atol=0.03 * np.abs(expected).max())
    np.testing.assert_allclose(slope, gradient, rtol=1e-3, atol=1e-3 * np.abs(gradient).max())
