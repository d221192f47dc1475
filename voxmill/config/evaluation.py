"""How found cells are compared with true ones, and what a network has to beat."""

from typing import Annotated

from pydantic import Field

from voxmill.config.base import (
    Count,
    Flag,
    NotNegative,
    Positive,
    Region,
    Section,
    Seed,
    Whole,
    section,
    setting,
)
from voxmill.config.tiles import Tolerance

# A sample as large as the volume: three windows a tile, within these limits.
_LEAST_WINDOWS, _MOST_WINDOWS = 12, 120


@section("evaluation")
class _Comparison(Section):
    max_distance_um: Positive = 5.0
    """A found cell farther than this from a true one is no match."""
    distances_um: Annotated[tuple[Positive, ...], Field(min_length=1)] = (
        1.0,
        2.0,
        3.0,
        5.0,
        8.0,
        12.0,
    )
    """Distances of the curve of F1 against distance."""
    bootstrap_samples: Whole = setting(1000, ge=0)
    """Samples for the interval of F1; 0 for none."""
    seed: Seed = 0
    """Of the bootstrap."""


@section("evaluation")
class EvaluationSettings(_Comparison):
    """How cells are compared with the ground truth."""

    region: Region | None = None
    """Region of interest "z0:z1, y0:y1, x0:x1": absolute voxels, half-open."""


@section("evaluation")
class EvaluationSection(_Comparison):
    """The section `evaluation` of a configuration."""

    baseline: Flag = True
    """Evaluate a difference of Gaussians too, with the threshold that is best for that very
    volume."""


@section("dog")
class DogSettings(Section):
    """How the difference of Gaussians finds cells."""

    cell_diameter_um: Positive
    """Typical cell diameter."""
    scales: Annotated[tuple[Positive, ...], Field(min_length=1)] = (0.7, 0.85, 1.0, 1.2, 1.45)
    """Filter scales to try, relative to the best one for a ball of that diameter. More than one
    needs a ground truth to choose by."""
    min_distance_um: Positive | None = None
    """Least distance of two cells; half a diameter by default."""
    threshold: NotNegative = 0.0
    """Least response, grey values."""
    block_vox: Count = 192
    """Edge of a block; without influence on the cells."""

    def __post_init__(self) -> None:
        if self.min_distance_um is None:
            object.__setattr__(self, "min_distance_um", self.cell_diameter_um / 2)


@section("seams")
class SeamSettings(Section):
    """How seams are sampled."""

    windows: Count | None = None
    """How many windows, each centred on a seam; those with the most contrast of four times as many
    are taken. By default three for each tile, at least 12 and at most 120."""
    window_vox: Whole = setting(32, ge=2)
    """Edge length of a window."""
    tolerance: Tolerance = 1e-3
    """Largest difference in probability that the halo was chosen for; for the report alone."""
    seed: Seed = 0
    """Of the places."""

    def windows_of(self, tiles: int) -> int:
        """Windows for a volume of so many tiles."""
        if self.windows is not None:
            return self.windows
        return min(max(3 * tiles, _LEAST_WINDOWS), _MOST_WINDOWS)
