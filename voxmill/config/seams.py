"""How the seams of a stitched volume are sampled."""

from voxmill.config.base import Count, Section, Seed, Whole, section, setting
from voxmill.config.tiles import Tolerance

# A sample as large as the volume: three windows a tile, within these limits.
_LEAST_WINDOWS, _MOST_WINDOWS = 12, 120


@section("seams")
class SeamSettings(Section):
    """How seams are sampled."""

    windows: Count | None = None
    """How many windows, each centred on a seam; those with the most contrast of four times as many
    are taken. By default three for each tile, at least 12 and at most 120."""
    window_vox: Whole = setting(default=32, ge=2)
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
