"""Percentiles, extremes, mean and standard deviation of a volume, read plane by plane."""

import math
from dataclasses import dataclass, field

import numpy as np

from voxmill.runtime.checked import write_checked_json
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.jobs import job, progress
from voxmill.volumes import (
    VOLUME_DTYPES,
    VolumeHeader,
    check_finite,
    check_source,
    open_volume,
    read_header,
)
from voxmill.volumes.fingerprints import Content, remember
from voxmill.volumes.header import check_dtype
from voxmill.volumes.sources import MADE

PERCENTILES = (0.1, 1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0, 99.9)
"""The percentiles that are measured; a model card names two of them for its normalisation."""

_PIECE = 2**20
"""Voxels that are converted to 64 bits at a time, so that memory stays near that of one plane."""


def measure(
    header: VolumeHeader,
    max_voxels: int = 2**33,
    max_samples: int = 2**23,
    seed: int = 0,
) -> dict:
    """Percentiles, extremes, mean and standard deviation of a volume.

    Whole numbers are counted in a histogram, so that their percentiles are exact (those of
    `numpy.percentile` with linear interpolation). A float volume of more than `max_samples` voxels
    is cut into runs of equal length, and one voxel of each is drawn at random for the percentiles.
    Of a volume of more than `max_voxels` only evenly spaced planes enter the statistics, but all
    are read for the digest. The result says which.

    Parameters
    ----------
    header : VolumeHeader
    max_voxels : int
        Most voxels that enter the statistics.
    max_samples : int
        Most voxels of a float volume that are kept for the percentiles.
    seed : int
        Of the draw.

    Returns
    -------
    statistics : dict
        JSON content: `percentiles` (keys as "99.9"), `minimum`, `maximum`, `mean`, `std`, `dtype`,
        `shape`, `voxels_read`, `planes_read`, `method`, `content` (digest of every voxel), and
        `samples` where voxels were drawn.

    Raises
    ------
    VoxmillError
        If the volume is constant, or holds NaN or infinite voxels.
    """
    check_dtype(header.path, np.dtype(header.dtype), VOLUME_DTYPES)
    plane_voxels = math.prod(header.shape[1:])
    step = max(1, math.ceil(header.shape[0] * plane_voxels / max_voxels))
    planes = range(0, header.shape[0], step)
    if np.dtype(header.dtype).kind == "f":
        run = max(1, math.ceil(len(planes) * plane_voxels / max_samples))
        summary: _Sample | _Histogram = _Sample(run, np.random.default_rng(seed))
    else:
        summary = _Histogram(np.dtype(header.dtype))
    content = Content(header)
    with open_volume(header) as volume:
        depth = header.shape[0]
        for z in progress(range(depth), depth, "plane", "measuring grey values"):
            plane = volume.read_window((z, 0, 0), (z + 1, *header.shape[1:]))
            content.add(plane[0])
            if z % step:
                continue
            check_finite(plane, header.path, (z, 0, 0))
            values = plane.ravel()
            for start in range(0, len(values), _PIECE):
                summary.add(values[start : start + _PIECE])
    statistics = summary.result()
    if statistics["minimum"] == statistics["maximum"]:
        raise VoxmillError(
            f"{header.path}: expected a volume with contrast, found every voxel to be "
            f"{statistics['minimum']:g}. Check the file and the channel."
        )
    read = "every plane" if step == 1 else f"planes 0, {step}, {2 * step}, ..."
    return statistics | {
        "dtype": header.dtype,
        "shape": list(header.shape),
        "content": content.hexdigest(),
        "planes_read": len(planes),
        "voxels_read": len(planes) * plane_voxels,
        "method": f"{statistics['method']} of {read}",
    }


class _Histogram:
    """Counts of every value of a type of 8 or 16 bits."""

    def __init__(self, dtype: np.dtype):
        limits = np.iinfo(dtype)
        self._lowest = int(limits.min)
        self._counts = np.zeros(int(limits.max) - self._lowest + 1, np.int64)

    def add(self, values: np.ndarray) -> None:
        if self._lowest:
            values = values.astype(np.int32) - self._lowest
        counts = np.bincount(values)
        self._counts[: len(counts)] += counts

    def result(self) -> dict:
        values = np.arange(len(self._counts)) + float(self._lowest)
        present = np.flatnonzero(self._counts)
        total = int(self._counts.sum())
        mean = float(values @ self._counts) / total
        variance = float((values - mean) ** 2 @ self._counts) / total
        ends = np.cumsum(self._counts)
        percentiles = {}
        for percentile in PERCENTILES:
            rank = percentile / 100 * (total - 1)
            below, above = (
                values[np.searchsorted(ends, position, side="right")]
                for position in (math.floor(rank), math.ceil(rank))
            )
            share = rank - math.floor(rank)
            percentiles[f"{percentile:g}"] = float(below + (above - below) * share)
        return {
            "percentiles": percentiles,
            "minimum": float(values[present[0]]),
            "maximum": float(values[present[-1]]),
            "mean": mean,
            "std": math.sqrt(variance),
            "method": "histogram of every voxel",
        }


@dataclass
class _Sample:
    """One voxel of each run of `run` voxels, drawn at random; sums over every voxel.

    Voxels at a fixed distance would all lie in a few columns wherever the distance divides the
    length of a row, hence the draw.
    """

    run: int
    random: np.random.Generator
    drawn: list = field(default_factory=list)
    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    lowest: float = math.inf
    highest: float = -math.inf

    def add(self, values: np.ndarray) -> None:
        self.lowest = min(self.lowest, float(values.min()))
        self.highest = max(self.highest, float(values.max()))
        wide = values.astype(np.float64)
        mean = float(wide.mean())
        wide -= mean
        # Two sets of values are merged by the formula of Chan, Golub & LeVeque (1979).
        total = self.count + len(values)
        gap = mean - self.mean
        self.squares += float(wide @ wide) + gap * gap * self.count * len(values) / total
        self.mean += gap * len(values) / total
        self.count = total
        starts = np.arange(0, len(values), self.run)
        lengths = np.minimum(self.run, len(values) - starts)
        self.drawn.append(values[starts + self.random.integers(0, lengths)])

    def result(self) -> dict:
        drawn = np.concatenate(self.drawn).astype(np.float64)
        values = np.percentile(drawn, PERCENTILES).tolist()
        found = {
            "percentiles": {f"{p:g}": v for p, v in zip(PERCENTILES, values, strict=True)},
            "minimum": self.lowest,
            "maximum": self.highest,
            "mean": self.mean,
            "std": math.sqrt(self.squares / self.count),
            "method": "every voxel",
        }
        if self.run > 1:
            found["method"] = f"one voxel at random in each run of {self.run}"
            found["samples"] = len(drawn)
        return found


@job(outputs=("output_path",))
def measure_volume(*, volume: dict, output_path: str, fingerprint: str | None = None) -> None:
    """Write the statistics of a volume as JSON; see `measure`.

    Parameters
    ----------
    volume : dict
        Arguments of `voxmill.volumes.read_header`.
    output_path : path
    fingerprint : str, optional
        Of the volume as the run was planned; kept with the statistics.

    Raises
    ------
    VoxmillError
        If the volume can't be read, is constant, holds NaN or infinite voxels, or is not the
        planned one.
    """
    header = read_header(**volume)
    check_source(header, fingerprint)
    statistics = measure(header)
    check_source(header, fingerprint)
    if fingerprint and not fingerprint.startswith(MADE):
        remember(header, statistics["content"])
    write_checked_json(output_path, statistics | {"fingerprint": fingerprint})
