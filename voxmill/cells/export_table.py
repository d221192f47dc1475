"""Write the table of measured cells as Parquet, which millions of rows are read from at once."""

from voxmill.cells.table import PLACE, read_numbers
from voxmill.runtime.files import writing
from voxmill.runtime.jobs import job, logger


@job(outputs=("output_path",))
def export_table(*, cells_path: str, output_path: str) -> None:
    """Write a table of cells as one Parquet file, with the columns and the numbers of the CSV.

    Parameters
    ----------
    cells_path : path
        What `measure_cells` wrote.
    output_path : path
        Columns of 64 bits, compressed by zstd; a measure that a cell has not is null.

    Raises
    ------
    VoxmillError
        If the table is missing or broken.
    """
    table = read_numbers(cells_path, ["id", *PLACE, "volume_um3"], "table of measured cells")
    with writing(output_path) as scratch:
        table.to_parquet(scratch, engine="pyarrow", compression="zstd", index=False)
    logger.info("%d cells, %d columns", *table.shape)
