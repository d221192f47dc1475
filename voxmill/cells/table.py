"""The table of cells: written, read and checked."""

from pathlib import Path

import numpy as np
import pandas as pd

from voxmill.geometry import Box, Resampling, Triple, VoxelSize
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
PLACE_UM = ["z_um", "y_um", "x_um"]
"""The same in micrometres."""

# Bytes. pandas would make a column of each field, however many there are.
_LONGEST_LINE = 1 << 16


def table_of(
    places: np.ndarray, scores: np.ndarray, volumes_um3: np.ndarray, size: VoxelSize
) -> pd.DataFrame:
    """A table of cells with the columns `COLUMNS`, sorted by z, y, x and numbered from 1.

    Parameters
    ----------
    places : (N, 3) float array
        Centroids in absolute voxels, z, y, x.
    scores, volumes_um3 : (N,) float array
    size : VoxelSize
        Of these voxels.
    """
    # Sorted as they are written: rounding in the last bit must not decide the order.
    z, y, x = np.round(places, 4).T
    order = np.lexsort((volumes_um3, scores, x, y, z))
    places, scores, volumes_um3 = places[order], scores[order], volumes_um3[order]
    numbers = np.column_stack([places, size.to_um(places), scores, volumes_um3])
    table = pd.DataFrame(numbers, columns=list(COLUMNS)[1:])
    table.insert(0, "id", np.arange(1, len(table) + 1))
    return table


def in_file(
    cells: pd.DataFrame,
    start: Triple,
    size: VoxelSize,
    grid: Resampling | None = None,
    box: Box | None = None,
) -> pd.DataFrame:
    """Cells that were found in a part of a volume, in the voxels of the volume's file.

    Parameters
    ----------
    cells : pandas.DataFrame
        As `table_of` gives it, in voxels of the part.
    start : (3,) int
        The part's first voxel.
    size : VoxelSize
        Of its voxels.
    grid : Resampling, optional
        Of the volume, where it was resampled on reading.
    box : Box, optional
        Only cells in it are kept; voxels of the file.
    """
    places = cells[PLACE].to_numpy(float) + start
    if grid is not None:
        # What little of the last voxel the file lacks belongs to the file's last one.
        places = np.minimum(grid.to_own(places), np.asarray(grid.own_shape) - 0.5001)
        size = grid.own_voxel_size_um
    kept = slice(None) if box is None else box.contains(places)
    scores, volumes_um3 = cells["score"].to_numpy(), cells["volume_um3"].to_numpy()
    return table_of(places[kept], scores[kept], volumes_um3[kept], size)


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
        shown = str(path).replace("\0", "\\0")
        raise VoxmillError(f"{shown}: expected a {what} (CSV), found {error}") from None
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
