"""Percentiles, extremes, mean and standard deviation of voxels that come piece by piece."""

import math
from dataclasses import dataclass, field

import numpy as np

from voxmill.config.normalisation import PERCENTILES


def percentiles_of(values: np.ndarray) -> dict[str, float]:
    """The percentiles `PERCENTILES` of some values, by name."""
    found = np.percentile(values.astype(np.float64), PERCENTILES).tolist()
    return {f"{p:g}": v for p, v in zip(PERCENTILES, found, strict=True)}


class Histogram:
    """Counts of every value of a type of 8 or 16 bits."""

    def __init__(self, dtype: np.dtype):
        limits = np.iinfo(dtype)
        self._lowest = int(limits.min)
        self._counts = np.zeros(int(limits.max) - self._lowest + 1, np.int64)

    def add(self, values: np.ndarray) -> None:
        """Take voxels."""
        if self._lowest:
            values = values.astype(np.int32) - self._lowest
        counts = np.bincount(values)
        self._counts[: len(counts)] += counts

    def result(self) -> dict:
        """Percentiles, extremes, mean, standard deviation and how they were found."""
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
class Sample:
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
        """Take voxels."""
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
        """Percentiles, extremes, mean, standard deviation and how they were found."""
        drawn = np.concatenate(self.drawn)
        found = {
            "percentiles": percentiles_of(drawn),
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


class BlockSample:
    """Voxels of each block of a volume, until it is known which blocks are tissue.

    Parameters
    ----------
    kept : int
        Voxels that are kept, at most about so many.
    total : int
        Voxels that will come.
    random : numpy.random.Generator
        Of the draw, where more come than are kept: one of each run, as in `Sample`.
    """

    def __init__(self, kept: int, total: int, random: np.random.Generator):
        self._run, self._random = max(1, math.ceil(total / kept)), random
        self._layers: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, samples: np.ndarray) -> None:
        """Take the voxels of a layer of blocks, (Y, X, n)."""
        starts = np.arange(0, samples.size, self._run)
        if self._run > 1:
            lengths = np.minimum(self._run, samples.size - starts)
            starts += self._random.integers(0, lengths)
        self._layers.append((samples.ravel()[starts], starts // samples.shape[-1]))

    def result(self, chosen: np.ndarray) -> dict:
        """As of the other summaries, of the chosen blocks alone.

        Parameters
        ----------
        chosen : (Z, Y, X) bool array
        """
        layers = zip(self._layers, chosen, strict=True)
        values = np.concatenate([drawn[layer.ravel()[at]] for (drawn, at), layer in layers])
        wide = values.astype(np.float64)
        return {
            "percentiles": percentiles_of(values),
            "minimum": float(wide.min()),
            "maximum": float(wide.max()),
            "mean": float(wide.mean()),
            "std": float(wide.std()),
            "samples": len(values),
            "method": "voxels of blocks that are wholly tissue",
        }


_RUN, _EVERY, _UNRELATED, _TOO_MANY = 50, 8, 48.0, 0.1


class Unrelated:
    """Share of runs of voxels of 8 bits whose neighbours have nothing to do with each other.

    Where only the low byte of larger numbers was kept, grey values wrap around: on the circle of
    256 values independent neighbours differ by 64 on average (a run's mean by 64 +- 5), and those
    of an image by 1.1 standard deviations of its noise. The limit of 48 is noise of 43, a sixth of
    the range. Every eighth row counts.
    """

    def __init__(self, dtype: np.dtype):
        self._applies = dtype == np.uint8
        self._runs = self._unrelated = 0

    def add(self, plane: np.ndarray) -> None:
        """Take a plane (y, x)."""
        runs = (plane.shape[1] - 1) // _RUN
        if not self._applies or not runs:
            return
        # Differences of bytes wrap around, which is what is wanted.
        steps = np.diff(plane[::_EVERY, : runs * _RUN + 1], axis=1)
        steps = np.minimum(steps, 0 - steps).reshape(-1, _RUN)
        self._runs += len(steps)
        self._unrelated += int((steps.mean(axis=1) > _UNRELATED).sum())

    def warning(self) -> str | None:
        """What to tell, if that is more than a tenth of the volume."""
        if self._unrelated <= _TOO_MANY * self._runs:
            return None
        return (
            f"in {self._unrelated / self._runs:.0%} of the volume neighbouring voxels have nothing "
            "to do with each other, as if only the low byte of 16 bits had been kept. Convert the "
            "original anew, with its grey values scaled to the new type."
        )
