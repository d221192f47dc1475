"""Peak memory and seconds per iteration of a fit: predicted everywhere, measured on CUDA devices.

    python benchmarks/denoising_memory.py --shape 256 256 150

Without a GPU the measured columns stay empty. Two devices are measured if there are two.

    python benchmarks/denoising_memory.py --cpu --shape 40 40 40 --iterations 2

measures on the CPU with one thread, each row in a separate process: the growth of its resident
memory during the fit.
"""

import argparse
import dataclasses
import multiprocessing
import resource
import sys
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from voxmill.config.denoising import DenoiseSettings
from voxmill.denoising.fitting import Fit
from voxmill.denoising.memory import plan_memory
from voxmill.denoising.placement import place_units, unit_names
from voxmill.denoising.precision import DTYPES
from voxmill.runtime.files import write_text

PRECISIONS, CPU_PRECISIONS = tuple(DTYPES), ("float32", "bfloat16")
HEAD = (
    "| precision | checkpointing | channels last | devices | cut | predicted GiB | measured GiB | "
    "s per iteration |\n|---|---|---|---|---|---|---|---|"
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(256, 256, 150))
    parser.add_argument("--iterations", type=int, default=5, help="timed, after two more")
    parser.add_argument("--cpu", action="store_true", help="measure on the CPU")
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks/memory.md"))
    options = parser.parse_args()
    default = DenoiseSettings()
    shape = tuple(options.shape)
    lines = [
        f"{' x '.join(map(str, shape))} voxels, {default.network.parameter_count() / 1e6:.1f} "
        f"million parameters; {torch.cuda.device_count()} CUDA device(s) here"
        + "".join(f", {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())),
        "",
        HEAD,
    ]
    for count in (1,) if options.cpu else (1, 2):
        names = ["cpu"] if options.cpu else [f"cuda:{index}" for index in range(count)]
        for precision in CPU_PRECISIONS if options.cpu else PRECISIONS:
            for checkpointing in (False, True):
                for last in (False, True):
                    settings = dataclasses.replace(
                        default, precision=precision, checkpointing=checkpointing,
                        channels_last=last,
                    )  # fmt: skip
                    lines.append(line(shape, settings, names, options.iterations))
                    print(lines[-1], flush=True)
    write_text(options.output, "\n".join(lines) + "\n")


def line(shape, settings, names, iterations):
    """One row of the table."""
    plan = plan_memory(shape, settings, names)
    digits = 2 if names == ["cpu"] else 1
    predicted, measured, seconds = gib(plan.peak_bytes, digits), "", ""
    try:
        if names == ["cpu"]:
            # A fresh process: the peak of resident memory only grows.
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found = pool.apply(measure, (shape, settings, names, iterations))
            measured, seconds = gib(found["peak_bytes"], digits), f"{found['iteration_s']:.2f}"
        elif torch.cuda.device_count() >= len(names):
            torch.cuda.empty_cache()
            found = measure(shape, settings, names, iterations)
            measured, seconds = gib(found["peak_bytes"], digits), f"{found['iteration_s']:.2f}"
    except torch.cuda.OutOfMemoryError:
        measured = "out of memory"
    return (
        f"| {settings.precision} | {'yes' if settings.checkpointing else 'no'} | "
        f"{'yes' if settings.channels_last else 'no'} | {len(names)} | {plan.cut} | {predicted} | "
        f"{measured} | {seconds} |"
    )


def gib(sizes, digits):
    """Bytes of each device, in GiB."""
    return " + ".join(f"{size / 2**30:.{digits}f}" for size in sizes)


def measure(shape, settings, names, iterations):
    """Peak memory, seconds and arithmetic of an iteration, after some that do not count.

    Parameters
    ----------
    shape : (3,) int
    settings : DenoiseSettings
    names : list of str
        One or two GPUs, or ["cpu"]: one thread, and the growth of resident memory (a fresh process
        is needed, since its peak only grows).
    iterations : int

    Returns
    -------
    dict
        predicted_bytes, peak_bytes (a list, one for each device), iteration_s, flop_per_s.
    """
    plan = plan_memory(shape, settings, names)
    settings = dataclasses.replace(settings, cut=plan.cut or settings.cut)
    devices = [torch.device(name) for name in names]
    gpus = [device for device in devices if device.type == "cuda"]
    if not gpus:
        torch.set_num_threads(1)
    target = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    before = resident_bytes()
    fit = Fit(target, settings, place_units(unit_names(settings), devices, settings.cut), level=0.1)
    with FlopCounterMode(display=False) as counter:
        fit.step()
    if gpus:
        fit.step()
    for device in gpus:
        torch.cuda.reset_peak_memory_stats(device)
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(iterations):
        fit.step()
    for device in gpus:
        torch.cuda.synchronize(device)
    seconds = (time.perf_counter() - start) / iterations
    peaks = [torch.cuda.max_memory_allocated(device) for device in gpus]
    return {
        "predicted_bytes": list(plan.peak_bytes),
        "peak_bytes": peaks or [resident_bytes() - before],
        "iteration_s": seconds,
        "flop_per_s": counter.get_total_flops() / seconds,
    }


def resident_bytes():
    """Peak of this process's resident memory."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
