"""Measure the labelled cells of a volume."""

from voxmill.cells.measure_cells import measure_cells

if __name__ == "__main__":
    measure_cells(
        cells_path=snakemake.input.cells,
        labels_path=snakemake.input.labels,
        source=snakemake.params.source,
        fingerprint=snakemake.params.fingerprint,
        settings=snakemake.params.settings,
        output_path=snakemake.output.cells,
        threads=snakemake.threads,
        code=snakemake.params.code,
        log_path=snakemake.log[0],
    )
