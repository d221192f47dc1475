"""How found cells are compared with true ones."""

from typing import Annotated

from pydantic import Field

from voxmill.config.base import (
    Flag,
    Positive,
    Region,
    Section,
    Seed,
    Whole,
    section,
    setting,
)


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
    bootstrap_samples: Whole = setting(default=1000, ge=0)
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
