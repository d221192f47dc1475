"""Inference of MS-D networks on a GPU: voxmill's engines and plain PyTorch (cuDNN), in one run.

    python benchmarks/gpu.py --output results/benchmarks

Each backend evaluates a random network on one block, as large as its memory plan for a whole volume
says, so that the cost of the halo counts. The seconds for the whole volume are those of the block
scaled to the voxels of all blocks, halos included. With --whole the fastest one evaluates them all.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from voxmill.config.networks import MSDNetSettings
from voxmill.engine import fourier
from voxmill.engine.backends import BACKENDS, forward
from voxmill.geometry import Box
from voxmill.networks import build
from voxmill.prediction.memory import SHARE, plan_blocks, predict_in_blocks
from voxmill.runtime.files import write_json, write_text
from voxmill.runtime.free_memory import free_bytes

ROWS = (
    ("gpu-fourier", "float32"),
    ("gpu-fourier", "float16"),
    ("gpu-direct", "float32"),
    ("gpu-direct", "float16"),
    ("torch-fast", "float32"),
    ("torch", "float32"),
    ("torch", "float16"),
)
VOLUME = (2304, 1280, 1024)
COMPARED_EDGE = 128


def measure_machine(device: str) -> dict:
    """The GPU's name, its copy bandwidth and its fastest float16 matrix product."""
    numbers = torch.ones(2**28, device=device)
    copy = _seconds_on_gpu(lambda: numbers.clone(), device)
    square = torch.randn(8192, 8192, device=device, dtype=torch.float16)
    product = _seconds_on_gpu(lambda: square @ square, device)
    return {
        "name": torch.cuda.get_device_name(device),
        "torch": torch.__version__,
        "copied_bytes_per_s": 2 * numbers.nbytes / copy,
        "float16_flop_per_s": 2 * 8192**3 / product,
    }


def _seconds_on_gpu(function, device: str) -> float:
    function()
    times = []
    for _ in range(5):
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        function()
        torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)


def make_network(depth: int):
    """Random weights, and biases with which about half of the voxels are positive."""
    network = build("msdnet", MSDNetSettings(depth=depth), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for bias in network.biases:
            bias.normal_(0.0, 0.1, generator=generator)
    return network.eval()


def plan(backend, settings, precision: str, volume, halo: int, budget: int, largest: int):
    """Shapes of the blocks of a whole volume with edges of at most `largest` voxels."""

    def needed(shape):
        return backend.predict_bytes(settings, shape, precision) if max(shape) <= largest else 2**60

    blocks = plan_blocks(volume, Box.from_shape(volume), (halo,) * 3, needed, budget)
    return [block.box.shape for block in blocks]


def measure(network, name: str, precision: str, given, device: str) -> dict:
    """Seconds and peak memory of the largest block, and the estimate for the whole volume."""
    backend = BACKENDS[name]
    if reason := backend.available(network, device):
        return {"problem": reason}
    budget = int(SHARE * free_bytes(device))
    volume = tuple(given.volume)
    shapes = plan(backend, network.settings, precision, volume, given.halo, budget, given.largest)
    shape = max(shapes, key=np.prod)
    box = np.random.default_rng(0).random((1, *shape), dtype=np.float32)
    row = {
        "block": shape,
        "blocks": len(shapes),
        "predicted_bytes": backend.predict_bytes(network.settings, shape, precision),
        "max_difference": compare(network, name, precision, device),
    }
    times = []
    for _ in range(given.repeats + 1):  # the first one compiles
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        start = time.perf_counter()
        backend.run(network, box, device, precision, 1)
        times.append(time.perf_counter() - start)
    row["seconds"] = statistics.median(times[1:])
    row["peak_bytes"] = torch.cuda.max_memory_allocated(device) - before
    return row | whole_volume(shapes, row["seconds"], shape, volume)


def whole_volume(shapes, seconds: float, shape, volume) -> dict:
    """The estimate for all blocks from the seconds of one."""
    all_voxels = sum(float(np.prod(s)) for s in shapes)
    return {
        "voxels_per_s": float(np.prod(shape)) / seconds,
        "work_factor": all_voxels / float(np.prod(volume)),
        "volume_seconds": seconds * all_voxels / float(np.prod(shape)),
    }


def compare(network, name: str, precision: str, device: str) -> float:
    """Largest difference from plain PyTorch in float32, in probability."""
    edge = (1,) + (COMPARED_EDGE,) * 3
    volume = np.random.default_rng(1).random(edge, dtype=np.float32)
    expected = forward(network, volume, "torch", device)
    return float(np.abs(forward(network, volume, name, device, precision) - expected).max())


def run_whole(network, name: str, precision: str, given, device: str) -> float:
    """Seconds for the whole volume, from an array in memory to an array in memory."""
    volume = np.random.default_rng(0).random((1, *given.volume), dtype=np.float32)
    core = Box.from_shape(given.volume)
    start = time.perf_counter()
    predict_in_blocks(network, volume, core, (given.halo,) * 3, name, device, precision)
    return time.perf_counter() - start


def table(rows: list[dict], depth: int, machine: dict) -> str:
    """A markdown table of all rows."""
    head = ["backend", "precision", "block", "s", "Mvoxel/s", "useful TFLOP/s", "peak GB"]
    head += ["predicted GB", "difference", "blocks", "work factor", "whole volume, s"]
    lines = [head, ["---"] * len(head)]
    operations = 2.0 * fourier.parameter_count(MSDNetSettings(depth=depth))
    for row in rows:
        cells = [row["backend"], row["precision"]]
        if "problem" in row:
            cells += [row["problem"][:80].replace("|", "/")] + [""] * (len(head) - 3)
        else:
            cells += [
                "x".join(map(str, row["block"])),
                f"{row['seconds']:.3f}",
                f"{row['voxels_per_s'] / 1e6:.1f}",
                f"{operations * row['voxels_per_s'] / 1e12:.1f}",
                f"{row['peak_bytes'] / 1e9:.2f}",
                f"{row['predicted_bytes'] / 1e9:.2f}",
                f"{row['max_difference']:.1e}",
                str(row["blocks"]),
                f"{row['work_factor']:.2f}",
                f"{row['volume_seconds']:.1f}",
            ]
        lines.append(cells)
    return f"{machine}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def main() -> None:
    """Measure, then write gpu.json and gpu.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--halo", type=int, default=48, help="voxels on each side")
    parser.add_argument("--volume", type=int, nargs=3, default=VOLUME, help="voxels, z y x")
    parser.add_argument("--largest", type=int, default=704, help="largest edge of a block")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--whole", action="store_true", help="run the whole volume with the best")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py: no CUDA device: nothing was measured")
    device, network = "cuda", make_network(given.depth)
    machine, rows = measure_machine(device), []
    for name, precision in ROWS:
        row = {"backend": name, "precision": precision}
        try:
            row |= measure(network, name, precision, given, device)
        except Exception as error:  # one that fails must not hide the others
            row["problem"] = f"{type(error).__name__}: {error}"
        rows.append(row)
        print(row, flush=True)
    result = {"machine": machine, "depth": given.depth, "halo_vox": given.halo, "rows": rows}
    done = [row for row in rows if "seconds" in row]
    if given.whole and done:
        best = min(done, key=lambda row: row["volume_seconds"])
        seconds = run_whole(network, best["backend"], best["precision"], given, device)
        result["whole"] = {"backend": best["backend"], "precision": best["precision"]}
        result["whole"]["seconds"] = seconds
        print(f"whole volume with {best['backend']}, {best['precision']}: {seconds:.1f} s")
    write_json(given.output / "gpu.json", result)
    text = table(rows, given.depth, machine)
    write_text(given.output / "gpu.md", text)
    print(text)


if __name__ == "__main__":
    main()
