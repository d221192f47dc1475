"""Write the table of measured cells as Parquet."""

from voxmill.cells.export_table import export_table

if __name__ == "__main__":
    export_table(
        cells_path=snakemake.input.cells,
        output_path=snakemake.output.cells,
        code=snakemake.params.code,
        log_path=snakemake.log[0],
    )
