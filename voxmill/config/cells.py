"""How cells are found in a probability volume."""

from typing import Annotated, Literal

from pydantic import Field

from voxmill.config.base import (
    NotNegative,
    Number,
    Positive,
    Section,
    Share,
    Whole,
    section,
    setting,
)

Threshold = Annotated[Number, Field(gt=0, le=1)]


@section("cells")
class _Detection(Section):
    method: Literal["maxima", "components"] = "maxima"
    """maxima: local maxima of the probability, at least `min_distance_um` apart. components:
    26-connected components of the voxels at or above the threshold."""
    threshold: Threshold = 0.5
    """Probability from which a maximum, or a component's voxel, counts."""
    min_distance_um: Positive = 5.0
    """For maxima: least distance of two cells; about half a cell diameter."""
    smoothing_um: NotNegative = 0.0
    """Standard deviation of a Gaussian applied to the probability before all else; 0 for none.
    Threshold and score refer to the smoothed probability."""
    min_volume_um3: NotNegative = 0.0
    """Cells of less volume are left out; 0 keeps all. The volume is that of the voxels at or above
    the threshold in the component or, with maxima, in the ball of radius `min_distance_um` around
    the maximum (touching cells share some)."""
    border_share: Share = 1.0
    """Share of `min_volume_um3` that is enough for a cell at the volume's border, which may cut
    it."""
    min_score: Share = 0.0
    """Cells of a lower score are left out; 0 keeps all. The score is the largest probability in a
    cell, so that with components a cell needs a voxel of this probability and reaches as far as
    the threshold (hysteresis; Canny, IEEE Trans. PAMI 8(6), 1986)."""


@section("cells")
class CellSettings(_Detection):
    """How a detector finds cells; each setting is described below it."""

    block_vox: Whole = setting(default=192, ge=8)
    """Edge of a block; a matter of memory, without influence on the cells."""


@section("cells")
class CellsSection(_Detection):
    """The section `cells` of a configuration, in which the model's card may decide."""

    method: Literal["model", "maxima", "components"] = "model"  # type: ignore[assignment]
    """maxima: local maxima of the probability, at least `min_distance_um` apart. components:
    connected components of the voxels at or above the threshold. model: what the model's card
    says, with its distances instead of those below; maxima where it says nothing."""
    threshold: Threshold | Literal["model"] = "model"  # type: ignore[assignment]
    """Probability from which a voxel can be a cell; model takes the one in the model's card."""
    min_distance_um: Positive = 6.0
    smoothing_um: NotNegative = 1.0
