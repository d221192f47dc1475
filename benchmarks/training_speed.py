"""Compare training steps of MS-D networks on a CPU: time and peak memory.

    python benchmarks/training_speed.py --output benchmarks/results/training_speed.json

A step is forward, backward and Adam on one random patch, for

fourier      : voxmill's engine with gradients, which trainings use on a CPU;
preallocated : PyTorch's convolutions with one buffer for all feature maps and a backward pass
               written by hand, so that nothing is copied;
plain        : PyTorch with `torch.cat`, which keeps the input of every layer;
dlsia        : dlsia's MSDNet with `nn.Conv3d` (benchmarks/requirements.txt).

Each measurement runs in a separate process with a time limit and a memory limit, and is reported as
such if it exceeds one. Results of earlier calls stay in the output file, so that slow rows can be
measured one by one with --runners and --depths.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from engine_worker import _timed, _Unused, make_network, peak_bytes

from voxmill.config.networks import MSDNetSettings
from voxmill.engine.autograd import fourier_forward
from voxmill.runtime.files import read_json, write_json


class Preallocated(torch.autograd.Function):
    """The MS-D network with one buffer of feature maps; parameters: weights, biases, final ones."""

    @staticmethod
    def forward(context, network, batch, *parameters):
        s = network.settings
        maps = batch.new_empty(len(batch), s.channels_before(s.depth), *batch.shape[2:])
        maps[:, : s.inputs] = batch
        for i in range(s.depth):
            seen = s.channels_before(i)
            maps[:, seen : seen + s.width] = functional.conv3d(
                maps[:, :seen], network.weights[i], network.biases[i], 1, s.dilation(i),
                s.dilation(i),
            ).relu_()  # fmt: skip
        context.network, context.maps = network, maps
        return functional.conv3d(maps, _kernel(network), network.final_bias)

    @staticmethod
    def backward(context, gradient):
        network, maps = context.network, context.maps
        s = network.settings
        upstream, final, bias = _convolution_backward(gradient, maps, _kernel(network), 1, 0)
        weights, biases = [None] * s.depth, [None] * s.depth
        for i in reversed(range(s.depth)):
            seen = s.channels_before(i)
            own = slice(seen, seen + s.width)
            inner = upstream[:, own] * (maps[:, own] > 0)
            inputs, weights[i], biases[i] = _convolution_backward(
                inner, maps[:, :seen], network.weights[i], s.dilation(i), s.dilation(i)
            )
            upstream[:, :seen] += inputs
        return None, None, *weights, *biases, final.flatten(1), bias


def _kernel(network):
    return network.final_weight[:, :, None, None, None]


def _convolution_backward(gradient, maps, kernel, dilation: int, padding: int):
    return torch.ops.aten.convolution_backward(
        gradient, maps, kernel, [len(kernel)], [1] * 3, [padding] * 3, [dilation] * 3, False,
        [0] * 3, 1, [True] * 3,
    )  # fmt: skip


def _dlsia(settings: MSDNetSettings):
    sys.meta_path.append(_Unused())
    from dlsia.core.networks.msdnet import MixedScaleDenseNetwork

    dilations = np.array([[settings.dilation(i) for i in range(settings.depth)]])
    return MixedScaleDenseNetwork(
        settings.inputs, settings.outputs, num_layers=None, layer_width=None, max_dilation=None,
        custom_msdnet=dilations, normalization=None, convolution=torch.nn.Conv3d,
    )  # fmt: skip


def prepare(runner: str, settings: MSDNetSettings, threads: int):
    """Make a module and the differentiable function from a batch to its logits."""
    if runner == "dlsia":
        network = _dlsia(settings)
        return network, network
    network = make_network(settings)
    parameters = [*network.weights, *network.biases, network.final_weight, network.final_bias]
    return network, {
        "plain": network,
        "preallocated": lambda batch: Preallocated.apply(network, batch, *parameters),
        "fourier": lambda batch: fourier_forward(network, batch, threads),
    }[runner]


RUNNERS = ("fourier", "preallocated", "plain", "dlsia")


def measure(runner, depth, width, size, threads, repeats, memory_gib) -> dict:
    """Seconds of the fastest step, and growth of the peak memory over the loaded process."""
    limit = int(memory_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    torch.set_num_threads(threads)
    settings = MSDNetSettings(depth=depth, width=width)
    network, forward = prepare(runner, settings, threads)
    optimizer = torch.optim.Adam(network.parameters())
    generator = torch.Generator().manual_seed(0)

    def step(side):
        batch = torch.rand(1, 1, side, side, side, generator=generator)
        optimizer.zero_grad()
        functional.binary_cross_entropy_with_logits(
            forward(batch), (batch > 0.9).float()
        ).backward()
        optimizer.step()

    step(8)
    before = peak_bytes()
    seconds = [_timed(lambda: step(size)) for _ in range(repeats)]
    return {"seconds": min(seconds), "peak_bytes": peak_bytes() - before}


def run(task: dict, timeout_s: float) -> dict:
    """Measure in a separate process; returns the result or the problem."""
    command = [sys.executable, __file__, "--task", json.dumps(task)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return {"problem": f"more than {timeout_s:g} s"}
    if done.returncode == 0:
        return json.loads(done.stdout)
    if "allocate memory" in done.stderr or "MemoryError" in done.stderr or done.returncode == -9:
        return {"problem": f"out of memory ({task['memory_gib']:g} GiB)"}
    last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    return {"problem": last[0]}


def show(rows: list[dict]) -> str:
    """Format the rows as a Markdown table."""
    lines = ["| depth | runner | seconds a step | peak memory, GiB |", "|---|---|---|---|"]
    for row in rows:
        numbers = (
            f"{row['seconds']:.1f} | {row['peak_bytes'] / 2**30:.1f}"
            if "seconds" in row
            else f"{row['problem']} | "
        )
        lines.append(f"| {row['depth']} | {row['runner']} | {numbers} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runners", nargs="+", default=RUNNERS, choices=RUNNERS)
    parser.add_argument("--depths", nargs="+", type=int, default=(50, 100))
    parser.add_argument("--width", type=int, default=1)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--memory-gib", type=float, default=18.0)
    parser.add_argument("--timeout-s", type=float, default=170.0)
    parser.add_argument("--output")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        print(json.dumps(measure(**json.loads(options.task))))
        return
    common = {k: getattr(options, k) for k in ("width", "size", "threads", "repeats")}
    rows = []
    if options.output and Path(options.output).exists():
        rows = read_json(options.output, "results")["rows"]
    for depth in options.depths:
        for runner in options.runners:
            task = {"runner": runner, "depth": depth, **common, "memory_gib": options.memory_gib}
            rows = [r for r in rows if {k: r[k] for k in task} != task]
            rows.append({**task, **run(task, options.timeout_s)})
            if options.output:
                write_json(options.output, {"torch": torch.__version__, "rows": rows})
    rows.sort(key=lambda r: (r["depth"], RUNNERS.index(r["runner"])))
    print(show(rows))


if __name__ == "__main__":
    main()
