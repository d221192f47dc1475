"""The table of cells: written, read and checked."""

from pathlib import Path

import numpy as np
import pandas as pd

from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import writing

# Columns of cells.csv and how their numbers are written; nine digits give a float32 back.
COLUMNS = {
    "id": "{:d}",
    "z_vox": "{:.4f}",
    "y_vox": "{:.4f}",
    "x_vox": "{:.4f}",
    "z_um": "{:.4f}",
    "y_um": "{:.4f}",
    "x_um": "{:.4f}",
    "score": "{:.9g}",
    "volume_um3": "{:.4f}",
}
PLACE = ["z_vox", "y_vox", "x_vox"]
"""Columns of a place in the volume, voxels; also those of the checked ground truth."""

# Bytes. pandas would make a column of each field, however many there are.
_LONGEST_LINE = 1 << 16


def write_cells(path: str | Path, cells: pd.DataFrame) -> None:
    """Write a table of cells; the same cells give the same bytes."""
    text = cells.copy()
    for column in text.columns:
        text[column] = text[column].map(COLUMNS.get(column, "{}").format)
    with writing(path) as scratch:
        text.to_csv(scratch, index=False, lineterminator="\n")


def read_cells(path: str | Path) -> pd.DataFrame:
    """Read a table of cells.

    Returns
    -------
    pandas.DataFrame
        At least the columns id, z_vox, y_vox, x_vox and score, as numbers.

    Raises
    ------
    VoxmillError
        If the file is missing or not a table of cells, or a number is missing or not finite.
    """
    return read_numbers(path, ["id", *PLACE, "score"], "table of cells")


def read_numbers(path: str | Path, needed: list[str], what: str) -> pd.DataFrame:
    """Read a table that a job of voxmill wrote.

    Parameters
    ----------
    path : path
    needed : list of str
        Columns that must hold finite numbers.
    what : str
        The role of the table, for messages.

    Raises
    ------
    VoxmillError
        If the file is missing or no such table, or a number is missing or not finite.
    """
    try:
        with open(path, "rb") as file:
            while line := file.readline(_LONGEST_LINE + 1):
                if len(line) > _LONGEST_LINE:
                    raise ValueError(f"a line of more than {_LONGEST_LINE} bytes")
        table = pd.read_csv(path)
    except FileNotFoundError:
        raise VoxmillError(f"{path}: this {what} does not exist.") from None
    except OSError as error:
        raise VoxmillError(f"{path}: this {what} cannot be read: {error.strerror}.") from None
    except ValueError as error:  # of pandas, of a decoder, of a path with a NUL
        raise VoxmillError(f"{str(path)!r}: expected a {what} (CSV), found {error}") from None
    if missing := [column for column in needed if column not in table]:
        raise VoxmillError(
            f"{path}: expected the columns {', '.join(needed)} of a {what}, "
            f"found no {missing[0]!r} among {list(table.columns)[:12]}"
        )
    for column in needed:
        numbers = pd.to_numeric(table[column], errors="coerce").astype(float)
        bad = np.flatnonzero(~np.isfinite(numbers))
        if len(bad):
            raise VoxmillError(
                f"{path}: expected a number in column {column!r} of data row {bad[0] + 1}, "
                f"found {table[column].iloc[bad[0]]!r}"
            )
    return table
