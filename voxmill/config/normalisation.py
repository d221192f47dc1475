"""How grey values become a network's input."""

from voxmill.config.base import Number, Positive, Section, section, setting


@section("normalisation")
class Normalisation(Section):
    """Two percentiles of the whole volume become 0 and 1."""

    low: Number = setting(default=5.0, ge=0, le=100)
    """Percentile that becomes 0."""
    high: Number = setting(default=99.0, ge=0, le=100)
    """Percentile that becomes 1."""
    clip: Positive = 10.0
    """Normalised values are clipped to [-clip, clip]."""
