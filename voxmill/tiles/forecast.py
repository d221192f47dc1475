"""What the tiles of a volume will take: jobs, bytes and hours, by arithmetic."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxmill.geometry import Triple
from voxmill.runtime.disk import readable
from voxmill.runtime.rates import Rate, predicted_as, recall
from voxmill.tiles.grid import Grid

_LABEL_BYTES = 4  # uint32
__all__ = ["Step", "forecast", "needed_bytes", "readable", "report", "told", "window_voxels"]


@dataclass(frozen=True)
class Step:
    """One kind of job of a run.

    Parameters
    ----------
    what : str
    jobs : int
    voxels : int
        That all jobs read or compute, halos counted each time.
    kept_bytes : int
        Of what stays on the disk.
    passing_bytes : int
        Of what is removed in the run.
    rate : Rate or None
        The last one of this machine.
    on_demand : bool
        Whether the run does it only where it is asked for, by a target of its own.
    """

    what: str
    jobs: int
    voxels: int
    kept_bytes: int
    passing_bytes: int = 0
    rate: Rate | None = None
    on_demand: bool = False

    @property
    def hours(self) -> float | None:
        """Hours of all jobs one after another; None where no rate is known."""
        return None if self.rate is None else self.voxels / self.rate.voxels_per_s / 3600


def told(steps: Sequence[Step], free_bytes: int, folder: str | Path) -> str:
    """How many bytes steps keep, for a reader; those that are on demand apart."""
    needed, demanded = needed_bytes(steps), sum(s.kept_bytes for s in steps if s.on_demand)
    more = f" ({readable(demanded)} more by `snakemake segment`)" if demanded else ""
    return f"{readable(needed)} to keep in all{more}; {readable(free_bytes)} are free in {folder}"


def needed_bytes(steps: Sequence[Step]) -> int:
    """Bytes that a run keeps, without what is on demand."""
    return sum(step.kept_bytes for step in steps if not step.on_demand)


def window_voxels(grid: Grid, halo_vox: Triple) -> int:
    """Voxels of all tiles with their halos.

    A sum along each axis, as windows are boxes of a grid: it takes no longer for a million tiles.

    Examples
    --------
    Windows of 5 and 5 voxels (0:5 and 3:8) in a row of 8:

    >>> window_voxels(Grid((1, 1, 8), (1, 1, 4)), (0, 0, 1))
    10
    """
    axes = zip(grid.first, grid.counts, grid.tile_shape, grid.shape, halo_vox, strict=True)
    return math.prod(
        sum(
            min((place + 1) * edge + halo, n) - max(place * edge - halo, 0)
            for place in range(first, first + count)
        )
        for first, count, edge, n, halo in axes
    )


def forecast(grid: Grid, halo_vox: Triple, itemsize: int, wanted: Mapping[str, Any]) -> list[Step]:
    """What cutting and predicting all tiles of a volume takes at most.

    Bytes are those before compression, and tiles without tissue, which no network sees, count.

    Parameters
    ----------
    grid : Grid
    halo_vox : (3,) int
    itemsize : int
        Bytes a voxel of the volume.
    wanted : dict
        What the configuration says: `per_job` and `per_cut` (tiles), `keep`, `networks` (digests
        of the weights by name), `prediction` (its section), `stitching` (the type and the formats
        of the probability), `check_jobs`, `stitch_jobs`, and `labels` (their formats), where labels
        are to be told of.

    Returns
    -------
    list of Step
    """
    return list(_steps(grid, halo_vox, itemsize, wanted))


def _steps(
    grid: Grid, halo_vox: Triple, itemsize: int, wanted: Mapping[str, Any]
) -> Iterator[Step]:
    read = window_voxels(grid, halo_vox)
    cores = window_voxels(grid, (0, 0, 0))
    stored = cores * np.dtype(wanted["stitching"]["dtype"]).itemsize
    if wanted["keep"] != "none":
        jobs = -(-len(grid) // wanted["per_cut"])
        size, kept = read * itemsize, wanted["keep"] == "all"
        yield Step("cut", jobs, read, size * kept, size * (not kept), recall("cut"))
    for name, weights_sha256 in wanted["networks"].items():
        jobs = -(-len(grid) // wanted["per_job"])
        rate = _prediction_rate(weights_sha256, wanted["prediction"])
        yield Step(f"predict {name}", jobs, read, stored, 0, rate)
        yield Step(f"check {name}", wanted["check_jobs"], cores, 0, 0, recall("check"))
        # Coarser levels, each of an eighth of the voxels, and a second copy where it is asked for.
        coarser = round(stored / 7) + stored * ("ome-tiff" in wanted["stitching"]["formats"])
        jobs, rate = wanted["stitch_jobs"], recall("stitch")
        yield Step(f"stitch {name}", jobs, round(cores / 7), coarser, 0, rate)
    for name in wanted["networks"] if "labels" in wanted else ():
        stored = cores * _LABEL_BYTES
        slabs, rate = wanted["check_jobs"], recall("label")
        yield Step(f"label {name}", slabs, cores, stored, 0, rate, on_demand=True)
        coarser = round(stored / 7) + stored * ("ome-tiff" in wanted["labels"]["formats"])
        jobs, rate = wanted["stitch_jobs"], recall("label levels")
        yield Step(f"label levels {name}", jobs, round(cores / 7), coarser, 0, rate, on_demand=True)


def _prediction_rate(weights_sha256: str, settings: Mapping[str, Any]) -> Rate | None:
    """Of the device that the configuration names; where it is auto of a GPU, or else of a CPU."""
    device = settings["device"]
    for each in ("cuda", "cpu") if device == "auto" else (device,):
        rate = recall(predicted_as(weights_sha256, {**settings, "device": each}))
        if rate is not None:
            return rate
    return None


def report(what: str, grid: Grid, halo_vox: Triple | None, steps: Sequence[Step]) -> str:
    """A table for a reader.

    Parameters
    ----------
    what : str
        Its title.
    grid : Grid
    halo_vox : (3,) int or None
        None: not measured yet.
    steps : sequence of Step
        As `forecast` gives them.
    """
    size = " x ".join(map(str, grid.shape))
    tile = " x ".join(map(str, grid.tile_shape))
    halo = "a halo that is measured first" if halo_vox is None else f"a halo of {halo_vox}"
    header = ("step", "jobs", "voxels", "kept", "removed", "hours", "of a rate of")
    lines = [header, *map(_line, steps)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    rows = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
    title = f"{what}: {size} voxels, {len(grid)} tiles of up to {tile} with {halo}"
    return "\n".join([title, *rows])


def _line(step: Step) -> tuple[str, ...]:
    unknown = "unknown", "no job of this machine yet"
    rate = step.rate
    hours = unknown
    if rate is not None and step.hours is not None:
        device = " on a GPU" if "-cuda-" in rate.what else ""
        hours = (
            f"{step.hours:.2f}",
            f"{rate.voxels_per_s / 1e6:.2f} Mvoxel/s{device}, {rate.node}, {rate.when}",
        )
    sizes = (readable(size) if size else "-" for size in (step.kept_bytes, step.passing_bytes))
    return step.what, str(step.jobs), f"{step.voxels:.3g}", *sizes, *hours
