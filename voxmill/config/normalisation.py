"""How grey values become a network's input."""

from typing import Literal

from voxmill.config.base import Number, Positive, Section, SettingError, Share, section, setting

PERCENTILES = (0.1, 1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0, 99.9)
"""The percentiles of a volume that are measured; a model card names two for its normalisation."""

_GLOBAL = {"low": 5.0, "high": 99.0}
_LOCAL = {
    "background_um": 16.0,
    "contrast": "texture",
    "scale": 4.0,
    "follow": 0.0,
    "floor": 0.3,
}


@section("normalisation")
class Normalisation(Section):
    """How grey values become a network's input: by the whole volume, or by the surroundings."""

    kind: Literal["global", "local"] = "global"
    """global: two percentiles of the tissue become 0 and 1. local: the background of the place
    becomes 0, and `scale` times its contrast above the background becomes 1."""
    low: Number | None = setting(default=None, ge=0, le=100)
    """Percentile that becomes 0; 5 by default. For global."""
    high: Number | None = setting(default=None, ge=0, le=100)
    """Percentile that becomes 1; 99 by default. For global."""
    background_um: Positive | None = None
    """Reach of the background: medians of blocks are averaged by a Gaussian of about this full
    width, micrometres (voxels where the size of a voxel is unknown); 16 by default. For local."""
    contrast: Literal["texture", "cells"] | None = None
    """What the contrast of the tissue is measured by. texture: the typical contrast of a block of
    tissue (the default). cells: how much blocks with and without cells differ, within typical
    regions of 320 micrometres. For local."""
    scale: Positive | None = None
    """So many times the contrast becomes 1; 4 by default. For local."""
    follow: Share | None = None
    """0: one contrast for the whole tissue (the default). 1: the contrast of the place. Between:
    the power of the place's contrast in a product of both. For local."""
    floor: Share | None = None
    """Least contrast of a place as a share of the tissue's, so that empty places do not become
    noise; 0.3 by default. For local."""
    clip: Positive = 10.0
    """Normalised values are clipped to [-clip, clip]."""

    def __post_init__(self) -> None:
        own, other = (_GLOBAL, _LOCAL) if self.kind == "global" else (_LOCAL, _GLOBAL)
        for key in other:
            if getattr(self, key) is not None:
                raise SettingError(
                    key, f"expected no such key with kind {self.kind}: it is for the other kind"
                )
        for key, value in own.items():
            if getattr(self, key) is None:
                object.__setattr__(self, key, value)
        if self.low is None or self.high is None:
            return
        for key in ("low", "high"):
            if getattr(self, key) not in PERCENTILES:
                known = ", ".join(f"{percentile:g}" for percentile in PERCENTILES)
                raise SettingError(
                    key, f"expected one of the percentiles {known}, found {getattr(self, key):g}"
                )
        if self.low >= self.high:
            raise SettingError(
                "low", f"expected less than high, {self.high:g}, found {self.low:g}: exchange them"
            )
