"""One measurement in its own process: seconds and peak memory of one program for a network.

Called by benchmarks/engine.py with a JSON object; prints a JSON object.
"""

import importlib.abc
import importlib.util
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from voxmill.config.networks import MSDNetSettings
from voxmill.engine.backends import BACKENDS
from voxmill.networks import build


def peak_bytes() -> int:
    """Peak memory of this process, as the system counts it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def make_network(settings: MSDNetSettings):
    """Random weights, and biases with which about half of the voxels are positive."""
    network = build("msdnet", settings, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for bias in network.biases:
            bias.normal_(0.0, 0.1, generator=generator)
    return network.eval()


def ours(name: str):
    """A backend of the registry."""

    def prepare(network, volume, threads):
        reason = BACKENDS[name].available(network, "cpu")
        if reason:
            raise RuntimeError(reason)
        return lambda box: BACKENDS[name].run(network, box, "cpu", "float32", threads)

    return prepare


def monai(network, volume, threads):
    """`sliding_window_inference`: windows of half the edge with 25 % overlap, its default."""
    from monai.inferers import sliding_window_inference

    def evaluate(box):
        window = [max(1, n // 2) for n in box.shape[1:]]
        with torch.no_grad():
            batch = torch.from_numpy(box)[None]
            return torch.sigmoid(sliding_window_inference(batch, window, 1, network))[0].numpy()

    return evaluate


class _Unused(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Empty modules in place of those that dlsia imports for figures, which nothing here needs."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("einops", "networkx", "plotly", "skimage", "torchvision"):
            return importlib.util.spec_from_loader(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        module.__getattr__ = lambda name: None


def dlsia(network, volume, threads):
    """dlsia's MSDNet with `nn.Conv3d` and the same weights."""
    sys.meta_path.append(_Unused())
    from dlsia.core.networks.msdnet import MixedScaleDenseNetwork

    s = network.settings
    dilations = np.array([[s.dilation(i) for i in range(s.depth)]])
    peer = MixedScaleDenseNetwork(
        s.inputs, s.outputs, num_layers=None, layer_width=None, max_dilation=None,
        custom_msdnet=dilations, normalization=None, convolution=torch.nn.Conv3d,
    ).eval()  # fmt: skip
    weights = [*network.weights, network.final_weight[:, :, None, None, None]]
    biases = [*network.biases, network.final_bias]
    layers = [m for m in peer.modules() if isinstance(m, torch.nn.Conv3d)]
    with torch.no_grad():
        for layer, weight, bias in zip(layers, weights, biases, strict=True):
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)

    def evaluate(box):
        with torch.no_grad():
            return torch.sigmoid(peer(torch.from_numpy(box)[None]))[0].numpy()

    return evaluate


RUNNERS = {
    **{name: ours(name) for name in BACKENDS},
    "monai": monai,
    "dlsia": dlsia,
}


def measure_inference(network, task: dict) -> dict:
    """Median seconds for a cube, and peak memory beyond that of the process before it."""
    size, runner, threads = task["size"], task["runner"], task["threads"]
    # Not negative: dlsia's network applies its ReLU to the input too.
    volume = np.random.default_rng(0).random((1, size, size, size), dtype=np.float32)
    evaluate = RUNNERS[runner](network, volume, threads)
    evaluate(volume[:, :8, :8, :8].copy())
    before = peak_bytes()
    results = [None]

    def run():
        results[0] = evaluate(volume)

    seconds = _repeated(run, task)
    if task.get("output"):
        np.save(task["output"], results[0])
    return seconds | {"peak_bytes": peak_bytes() - before}


def measure_training(network, task: dict) -> dict:
    """Median seconds of forward, backward and Adam on one cube, and peak memory."""
    size, runner, threads = task["size"], task["runner"], task["threads"]
    from voxmill.engine.autograd import fourier_forward

    optimizer = torch.optim.Adam(network.parameters())
    loss = torch.nn.functional.binary_cross_entropy_with_logits

    def step(side):
        batch = torch.ones(1, 1, side, side, side)
        logits = network(batch) if runner == "torch" else fourier_forward(network, batch, threads)
        optimizer.zero_grad()
        loss(logits, batch).backward()
        optimizer.step()

    step(8)
    before = peak_bytes()
    seconds = _repeated(lambda: step(size), task)
    return seconds | {"peak_bytes": peak_bytes() - before}


def _repeated(function, task: dict) -> dict:
    """Median seconds of `repeats` runs after a first one that warms up.

    Slow programs are repeated only within `enough_s`, but the first run counts only where it
    took more than three times that: fresh memory is dear (on a virtual machine, seconds for a few
    GB), and blocks after the first use the same again.
    """
    first, rest = _timed(function), []
    while len(rest) < task["repeats"] and (
        first + sum(rest) < task["enough_s"] or (not rest and first < 3 * task["enough_s"])
    ):
        rest.append(_timed(function))
    return {"seconds": statistics.median(rest or [first]), "runs": max(1, len(rest))}


def _timed(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    task = json.loads(sys.argv[1])
    torch.set_num_threads(task["threads"])
    made = make_network(MSDNetSettings(depth=task["depth"]))
    measure = measure_training if task["what"] == "training" else measure_inference
    print(json.dumps(measure(made, task)))
