"""Sizes in the Fourier engine for GPUs: of the padded box, of its spectra and of its tables."""

import math
from dataclasses import dataclass
from functools import cached_property

from voxmill.config.networks import MSDNetSettings
from voxmill.engine.gpu import SIZES, filled_up
from voxmill.engine.gpu_rows import split_length
from voxmill.engine.transforms import least_lengths, lengths

PANEL_MAPS = 8
# A slab's table is written and read at once: it stays in the L2 cache (50 MB on an H100, 40 MB on
# an A100), with room for the spectra that stream through it.
TABLE_BYTES = 24 * 2**20
VECTOR = 16  # numbers; each line starts at a multiple of it, and so does each row of a table


@dataclass(frozen=True)
class SpectrumSizes:
    """Sizes of the padded box, its spectra and the tables of kernels.

    Parameters
    ----------
    settings : MSDNetSettings
    box : (3,) int
        Voxels, z, y, x.
    precision : str
        Storage of the spectra, "float32" or "float16".
    fused : bool
        The pass along x is one kernel, which wants other lengths.
    """

    settings: MSDNetSettings
    box: tuple[int, int, int]
    precision: str
    fused: bool = False

    @cached_property
    def factors(self) -> tuple[int, int] | None:
        """Of the length along x for the fused kernel; None where the box is too long for it."""
        return split_length(least_lengths(self.settings, self.box)[2])

    @cached_property
    def padded(self) -> tuple[int, int, int]:
        """Lengths of the transforms."""
        z, y, x = lengths(self.settings, self.box, lanes=1, even_x=True)
        return (z, y, math.prod(self.factors)) if self.fused and self.factors else (z, y, x)

    @cached_property
    def columns(self) -> int:
        """Frequencies along x."""
        return self.padded[2] // 2 + 1

    @cached_property
    def row_stride(self) -> int:
        """Numbers from line to line of a stored spectrum."""
        return filled_up(self.columns, VECTOR)

    @cached_property
    def lines(self) -> int:
        """Pairs of frequencies along z and y."""
        return self.padded[0] * self.padded[1]

    @cached_property
    def scale(self) -> float:
        """What makes up for two transforms, neither of which divides by the size."""
        return 1.0 / math.prod(self.padded)

    @cached_property
    def voxels(self) -> int:
        """Of the box."""
        return math.prod(self.box)

    @cached_property
    def panel_layers(self) -> int:
        """Layers that pull from all earlier feature maps at once."""
        return min(self.settings.depth, max(1, PANEL_MAPS // self.settings.width))

    @cached_property
    def panel_maps(self) -> int:
        """Feature maps whose sums are in memory at one time."""
        return self.panel_layers * self.settings.width

    @cached_property
    def stored_maps(self) -> int:
        """Feature maps whose spectra are stored: not the last layer's, which no layer reads.

        The last layer's maps are added to the logits directly.
        """
        return self.settings.channels_before(self.settings.depth - 1)

    @staticmethod
    def table_row(targets: int, sources: int) -> int:
        """Numbers in the table for one line."""
        return 12 * targets * filled_up(sources, VECTOR)

    def table_lines(self, targets: int, sources: int) -> int:
        """Lines of a slab: as many as a table of `TABLE_BYTES` has room for."""
        line = self.table_row(targets, sources) * SIZES[self.precision]
        return max(1, min(self.lines, TABLE_BYTES // line))

    def table_numbers(self) -> int:
        """Numbers that the table of any pull, of some targets from all sources at most, has."""
        line = self.table_row(self.panel_maps, self.stored_maps)
        return max(line, min(self.lines * line, TABLE_BYTES // SIZES[self.precision]))
