"""Figures drawn without a screen, and their files."""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from voxmill.runtime.files import writing

matplotlib.use("Agg")
from matplotlib import pyplot as plt

__all__ = ["plt", "save_figure"]


def save_figure(figure: Figure, path: str | Path, dpi: int = 110) -> None:
    """Write a figure as PNG, the same bytes from run to run, and close it."""
    with writing(path) as scratch:
        # The program's name would tell matplotlib's version.
        figure.savefig(scratch, dpi=dpi, metadata={"Software": "voxmill"})
    plt.close(figure)
