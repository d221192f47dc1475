"""One row of benchmarks/gpu.py in a process of its own: prints a JSON object.

It takes `[row, setup]` as JSON. On a CPU (`--mini`) the same code runs, with Triton's interpreter
for the kernels and resident memory instead of the GPU's.
"""

import dataclasses
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# The memory of a fit at the limit is not lost in pieces.
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

COMPARED_EDGE = 64
PROFILED = 12  # kernels that take most of the time
LONG_S = 60.0  # of calls that are timed; no further one is begun


def measure_machine(row: dict, setup: SimpleNamespace) -> dict:
    """The card, its copy rates and its fastest float16 matrix product."""
    import torch

    device = setup.device
    numbers = torch.ones(setup.copied_mb * 2**18, device=device)
    square = torch.randn(setup.product, setup.product, device=device).half()
    found = {
        "card": card(device),
        "copied_bytes_per_s": 2 * numbers.nbytes / best_of(lambda: numbers.clone(), device),
        "float16_flop_per_s": 2 * setup.product**3 / best_of(lambda: square @ square, device),
        "versions": versions(),
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found["memory_bytes"] = properties.total_memory
        found["capability"] = f"{properties.major}.{properties.minor}"
        pageable = torch.ones(2**26)
        for name, host in (("pageable", pageable), ("pinned", pageable.pin_memory())):
            seconds = best_of(lambda host=host: host.to(device), device)
            found[f"{name}_bytes_per_s"] = host.nbytes / seconds
    return found


def versions() -> dict[str, str]:
    """Of Python, PyTorch, CUDA, cuDNN, Triton and the driver, as far as they are here."""
    import torch

    found = {"python": platform.python_version(), "torch": torch.__version__}
    found["cuda"] = str(torch.version.cuda)
    if torch.backends.cudnn.is_available():
        found["cudnn"] = str(torch.backends.cudnn.version())
    try:
        import triton

        found["triton"] = triton.__version__
    except ImportError:
        found["triton"] = "none"
    # With it and Python's headers, Triton builds what starts its kernels.
    found["C compiler"] = (
        os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc") or "none"
    )
    if program := shutil.which("nvidia-smi"):
        command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True)
        found["driver"] = done.stdout.strip().splitlines()[0] if done.stdout.strip() else "unknown"
    return found


def card(device: str) -> str:
    """Name of the GPU, or "CPU"."""
    import torch

    return torch.cuda.get_device_name(0) if device == "cuda" else "CPU"


def wait_for(device: str) -> None:
    """Wait until the GPU has done all it was asked for."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def best_of(function, device: str, times: int = 5) -> float:
    """Least seconds of some calls, after one that does not count."""
    return min(seconds_of(function, device, times))


def seconds_of(function, device: str, times: int) -> list[float]:
    """Seconds of each of some calls, after one that does not count (it compiles)."""
    seconds = []
    for _ in range(times + 1):
        wait_for(device)
        start = time.perf_counter()
        function()
        wait_for(device)
        seconds.append(time.perf_counter() - start)
        if len(seconds) > 1 and sum(seconds) > LONG_S:
            break
    return seconds[1:]


def run_tests(row: dict, setup: SimpleNamespace) -> dict:
    """The tests of a file that need a GPU; in miniature, two in Triton's interpreter."""
    chosen = ["-k", "maps_that_are_zero"] if setup.mini else ["-m", "gpu"]
    # The tests' conftest.py needs packages that the machine may lack.
    command = [sys.executable, "-m", "pytest", "--noconftest", "-v", "-p", "no:cacheprovider"]
    lines = ["no output"]
    with subprocess.Popen(
        [*command, *chosen, str(ROOT / "tests" / "unit" / row["file"])],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
    ) as tests:  # fmt: skip
        for line in tests.stdout:
            # If these take too long, what is done so far is kept as the row's errors.
            print(line, end="", file=sys.stderr, flush=True)
            lines.append(line.rstrip())
    summary = lines[-1].strip("= ")
    found = {"summary": summary, "status": tests.returncode}
    if tests.returncode:
        found |= {"problem": summary, "errors": "\n".join(lines)[-6000:]}
    return found


def make_network(depth: int):
    """Random weights, and biases with which about half of the voxels are positive."""
    import torch

    from voxmill.config.networks import MSDNetSettings
    from voxmill.networks import build

    network = build("msdnet", MSDNetSettings(depth=depth), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for bias in network.biases:
            bias.normal_(0.0, 0.1, generator=generator)
    return network.eval()


def open_row(row: dict, setup: SimpleNamespace):
    """The network and the backend of a row; ends with its problem where it can't run."""
    from voxmill.engine.backends import BACKENDS

    network, backend = make_network(setup.depth), BACKENDS[row["backend"]]
    if setup.device == "cuda" and (reason := backend.available(network, "cuda")):
        raise SystemExit(json.dumps({"problem": reason}))
    return network, backend


def measure_box(network, backend, row: dict, setup: SimpleNamespace, shape) -> dict:
    """Seconds, memory and error of a backend on one box; copies to and from the GPU included."""
    import numpy as np

    from voxmill.engine import fourier

    device, precision = setup.device, row["precision"]
    box = np.random.default_rng(0).random((1, *shape), dtype=np.float32)
    before = memory(device)
    seconds = statistics.median(
        seconds_of(lambda: backend.run(network, box, device, precision, 1), device, setup.repeats)
    )
    voxels = float(np.prod(shape))
    return {
        "card": card(device),
        "block": list(shape),
        "seconds": seconds,
        "voxels_per_s": voxels / seconds,
        "flop_per_s": 2.0 * fourier.parameter_count(network.settings) * voxels / seconds,
        "peak_bytes": peak(device) - before,
        "predicted_bytes": backend.predict_bytes(network.settings, shape, precision, device),
        "max_difference": compare(network, backend, precision, setup),
    }


def compare(network, backend, precision: str, setup: SimpleNamespace) -> float:
    """Largest difference from plain PyTorch in float32, in probability, on a small box."""
    import numpy as np

    from voxmill.engine.backends import forward

    edge = min(COMPARED_EDGE, *setup.volume)
    box = np.random.default_rng(1).random((1, edge, edge, edge), dtype=np.float32)
    expected = forward(network, box, "torch", setup.device)
    found = backend.run(network, box, setup.device, precision, 1)
    return float(np.abs(found - expected).max())


def memory(device: str) -> int:
    """Bytes in use now; the peak is counted from here."""
    import torch

    if device != "cuda":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def peak(device: str) -> int:
    """Most bytes in use since `memory`."""
    import torch

    if device != "cuda":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return torch.cuda.max_memory_allocated()


def measure_engine(row: dict, setup: SimpleNamespace) -> dict:
    """One backend on a cube."""
    network, backend = open_row(row, setup)
    return measure_box(network, backend, row, setup, (row["edge"],) * 3)


def shapes_of_blocks(network, backend, row: dict, setup: SimpleNamespace) -> list[tuple]:
    """The blocks of the whole volume that fit the free memory, with their halos."""
    from functools import partial

    from voxmill.geometry import Box
    from voxmill.prediction.memory import SHARE, box_bytes, plan_blocks
    from voxmill.runtime.free_memory import free_bytes

    device = setup.device
    bytes_of = partial(box_bytes, backend, network.settings, row["precision"], device=device)

    def needed(shape):
        return bytes_of(shape) if max(shape) <= setup.largest else 2**60

    volume, budget = tuple(setup.volume), int(SHARE * free_bytes(device))
    blocks = plan_blocks(volume, Box.from_shape(volume), (setup.halo,) * 3, needed, budget)
    return [block.box.shape for block in blocks]


def measure_block(row: dict, setup: SimpleNamespace) -> dict:
    """One backend on the largest block of the whole volume, and what all blocks would take."""
    import numpy as np

    network, backend = open_row(row, setup)
    shapes = shapes_of_blocks(network, backend, row, setup)
    found = measure_box(network, backend, row, setup, max(shapes, key=np.prod))
    voxels = sum(float(np.prod(shape)) for shape in shapes)
    return found | {
        "blocks": len(shapes),
        "work_factor": voxels / float(np.prod(setup.volume)),
        "volume_seconds": voxels / found["voxels_per_s"],
    }


def profile_block(row: dict, setup: SimpleNamespace) -> dict:
    """The same block, and the kernels that its evaluation spends its time in."""
    import numpy as np

    network, backend = open_row(row, setup)
    shape = max(shapes_of_blocks(network, backend, row, setup), key=np.prod)
    found = measure_box(network, backend, row, setup, shape)
    try:
        return found | kernels_of(network, backend, row, setup, shape)
    except Exception as error:
        # Some machines let nobody profile; the seconds of the block are known all the same.
        return found | {"not_profiled": f"{type(error).__name__}: {error}"}


def kernels_of(network, backend, row: dict, setup: SimpleNamespace, shape) -> dict:
    """Seconds of the kernels of one evaluation, those that take most of them first."""
    import numpy as np
    from torch.profiler import ProfilerActivity, profile

    box = np.random.default_rng(0).random((1, *shape), dtype=np.float32)
    on_gpu = setup.device == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as seen:
        backend.run(network, box, setup.device, row["precision"], 1)
        wait_for(setup.device)
    times = [
        (event.key, event.count, event.self_device_time_total if on_gpu else
         event.self_cpu_time_total)
        for event in seen.key_averages()
    ]  # fmt: skip
    total = sum(time_us for _, _, time_us in times)
    times.sort(key=lambda each: -each[2])
    kernels = [
        {"name": name[:80], "calls": calls, "seconds": us / 1e6, "share": us / max(total, 1e-9)}
        for name, calls, us in times[:PROFILED]
    ]
    return {"kernels_seconds": total / 1e6, "kernels": kernels}


def run_whole(row: dict, setup: SimpleNamespace) -> dict:
    """Seconds for the whole volume, from an array in memory to an array in memory."""
    import numpy as np

    from voxmill.geometry import Box
    from voxmill.prediction.memory import predict_in_blocks

    network, _ = open_row(row, setup)
    volume = np.random.default_rng(0).random((1, *setup.volume), dtype=np.float32)
    # Triton's interpreter is no backend of a CPU.
    name = row["backend"] if setup.device == "cuda" else "torch"
    precision = row["precision"] if setup.device == "cuda" else "float32"
    before, start = memory(setup.device), time.perf_counter()
    found = predict_in_blocks(
        network, volume, Box.from_shape(tuple(setup.volume)), (setup.halo,) * 3, name,
        setup.device, precision,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    return {
        "card": card(setup.device),
        "seconds": seconds,
        "voxels_per_s": float(np.prod(setup.volume)) / seconds,
        "peak_bytes": peak(setup.device) - before,
        "mean": float(found.mean(dtype=np.float64)),
    }


def measure_fit(row: dict, setup: SimpleNamespace) -> dict:
    """Seconds, memory and arithmetic of an iteration of a fit."""
    import denoising_memory

    from voxmill.config.denoising import DenoiseSettings

    if setup.device == "cuda":
        import torch

        if torch.cuda.device_count() < row["gpus"]:
            return {"problem": f"there are {torch.cuda.device_count()} GPU(s)"}
    names = [f"cuda:{index}" for index in range(row["gpus"])] if setup.device == "cuda" else ["cpu"]
    how = ("precision", "checkpointing", "channels_last", "deterministic")
    settings = dataclasses.replace(
        DenoiseSettings.from_dict({"network": setup.network}),
        **{key: row[key] for key in how if key in row},
    )
    measured = denoising_memory.measure(tuple(setup.scan), settings, names, setup.iterations)
    return {"card": card(setup.device)} | measured


KINDS = {
    "machine": measure_machine,
    "tests": run_tests,
    "engine": measure_engine,
    "profile": profile_block,
    "whole": run_whole,
    "block": measure_block,
    "fit": measure_fit,
}


def main() -> None:
    """Measure the row of the command line."""
    row, setup = json.loads(sys.argv[1])
    if setup["device"] == "cuda" and row["kind"] != "tests":
        import torch

        if not torch.cuda.is_available():
            print(json.dumps({"problem": "there is no CUDA device"}))
            return
    print(json.dumps(KINDS[row["kind"]](row, SimpleNamespace(**setup))))


if __name__ == "__main__":
    main()
