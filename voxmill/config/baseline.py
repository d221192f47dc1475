"""The detector without learning that a network has to beat."""

from typing import Annotated

from pydantic import Field

from voxmill.config.base import Count, NotNegative, Positive, Section, section


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
        object.__setattr__(self, "min_distance_um", self.least_distance_um)

    @property
    def least_distance_um(self) -> float:
        """`min_distance_um`, or what stands for it where it isn't given."""
        if self.min_distance_um is None:
            return self.cell_diameter_um / 2
        return self.min_distance_um
