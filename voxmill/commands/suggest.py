"""Write the places of a prediction that are worth a look, as points for napari.

They are the cells that were found with the lowest scores, and the likeliest misses: maxima of the
probability below the threshold. Correct them in the viewer, and train again.
"""

import argparse
from pathlib import Path

from voxmill.cells.suggest_cells import suggest
from voxmill.cells.table import PLACE, read_cells
from voxmill.config.cells import CellSettings
from voxmill.config.files import read_configuration
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import writing
from voxmill.volumes.probability import Probabilities
from voxmill.workflow import configuration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("configuration", type=Path, help="a YAML file, as for --configfile")
    parser.add_argument("volume", help="a name under `volumes`")
    parser.add_argument("network", help="a name under `networks`")
    parser.add_argument("--number", type=int, default=50, help="of each kind at most (50)")
    parser.add_argument("--threads", type=int, default=1)


def run(options: argparse.Namespace) -> int:
    """Write results/VOLUME/NETWORK/suggestions.csv; returns 0.

    Raises
    ------
    VoxmillError
        If the configuration or a name is wrong, or nothing is predicted yet.
    """
    path = options.configuration
    config = configuration.load(read_configuration(path), str(path))
    for name, names in (("volume", config.volumes), ("network", config.cards)):
        if getattr(options, name) not in names:
            raise VoxmillError(
                f"{path}: expected a {name}, one of {', '.join(names)}, found "
                f"{getattr(options, name)!r}."
            )
    folder = Path("results", options.volume, options.network)
    settings = config.cell_settings(options.volume, options.network)
    found = read_cells(folder / "cells.csv")
    grid = config.volumes[options.volume].resampling
    if grid is not None:
        found[PLACE] = grid.from_own(found[PLACE].to_numpy(float))
    with Probabilities(folder / "probability.ome.zarr") as probability:
        table = suggest(
            probability, found, CellSettings.from_dict(settings),
            config.volumes[options.volume].voxel_size_um, options.number, options.threads,
        )  # fmt: skip
    if grid is not None:
        table[PLACE] = grid.to_own(table[PLACE].to_numpy(float))
    points = table[PLACE].set_axis([f"axis-{axis}" for axis in range(3)], axis=1)
    points = points.assign(kind=table["kind"], score=table["score"].round(4))
    with writing(folder / "suggestions.csv") as scratch:
        points.to_csv(scratch, index_label="index", lineterminator="\n")
    counts = table["kind"].value_counts()
    print(
        f"{folder / 'suggestions.csv'}: {counts.get('uncertain', 0)} uncertain cells and "
        f"{counts.get('missed', 0)} likely misses, the nearest to the threshold first."
    )
    return 0
