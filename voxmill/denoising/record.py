"""Write the JSON record of a fit and the CSV table of its iterations."""

import csv
import importlib.metadata
import itertools
import math
import platform
import resource
from pathlib import Path

import torch

from voxmill import __version__
from voxmill.config.denoising import DenoiseSettings, plain_settings
from voxmill.denoising.loop import COLUMNS
from voxmill.denoising.memory import MemoryPlan
from voxmill.denoising.volume import Denoised
from voxmill.runtime.files import write_json, writing

PACKAGES = ("torch", "numpy", "scipy", "scikit-image", "nibabel")


def write_record(
    path: str | Path,
    denoised: Denoised,
    settings: DenoiseSettings,
    plan: MemoryPlan,
    devices: tuple[str, ...],
    scan: dict,
    metrics: dict | None = None,
) -> None:
    """Write the record of a fit.

    Parameters
    ----------
    path : path
        JSON.
    denoised : Denoised
    settings : DenoiseSettings
    plan : MemoryPlan
        The predicted peak memory of one fit; the measured one is recorded too.
    devices : tuple of str
        Those of all fits.
    scan : dict
        What identifies the input: path, digest, shape, volume.
    metrics : dict, optional
        Of the noisy and of the denoised scan against the reference.
    """
    rows = denoised.rows
    content = {
        "scan": scan,
        "settings": plain_settings(settings),
        "seed": settings.seed,
        "noise_sigma": denoised.domain.sigma,
        "padding": [list(pair) for pair in denoised.domain.pads],
        "iterations": len(rows),
        "result_of_iterations": list(denoised.best_iterations),
        "stop_reason": denoised.reason,
        "loss_first": rows[0]["loss"],
        "loss_last": rows[-1]["loss"],
        "skipped_steps": sum(row["skipped"] for row in rows),
        "seconds": max(row["seconds"] for row in rows),
        "placement": denoised.placement,
        # Fits at once have one or two devices each, in order.
        "planned_peak_bytes": dict(zip(devices, itertools.cycle(plan.peak_bytes), strict=False)),
        "peak_bytes": peak_bytes(devices),
        "versions": versions(),
    }
    if metrics is not None:
        content["metrics"] = metrics
        best = max((row for row in rows if "psnr" in row), key=lambda row: row["psnr"])
        content["best_in_hindsight"] = {k: best[k] for k in ("fit", "iteration", "psnr", "ssim")}
    write_json(path, content)


def write_history(path: str | Path, rows: list[dict]) -> None:
    """Write one line per iteration; columns without a value stay empty."""
    with writing(path) as scratch, open(scratch, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        table.writeheader()
        for row in rows:
            known = {k: v for k, v in row.items() if not (isinstance(v, float) and math.isnan(v))}
            table.writerow(known)


def peak_bytes(devices: tuple[str, ...]) -> dict[str, int]:
    """Peak memory of this process on each GPU (PyTorch's allocator) and on the host."""
    peaks = {
        name: torch.cuda.max_memory_allocated(name) for name in devices if name.startswith("cuda")
    }
    # Linux reports kilobytes.
    return peaks | {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def versions() -> dict[str, str]:
    """Versions of Python and the packages, and the names of the GPUs."""
    found = {"voxmill": __version__, "python": platform.python_version()}
    found |= {name: importlib.metadata.version(name) for name in PACKAGES}
    for index in range(torch.cuda.device_count()):
        found[f"cuda:{index}"] = torch.cuda.get_device_name(index)
    return found
