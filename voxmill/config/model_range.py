"""What the training volumes of a model looked like."""

from voxmill.config.base import NotNegative, Number, Section, section


@section("seen")
class Seen(Section):
    """Grey values as the network takes them, and cells, of a model's training volumes.

    Each is a pair: of the lowest and the highest of all volumes.
    """

    background: tuple[Number, Number] | None = None
    """Normalised medians of blocks of tissue: the 5th and the 95th percentile."""
    contrast: tuple[Number, Number] | None = None
    """Normalised 95th percentiles of blocks of tissue less their medians: the 5th and the 95th
    percentile."""
    density_per_mm3: tuple[NotNegative, NotNegative] | None = None
    """True cells per cubic millimetre of tissue."""
