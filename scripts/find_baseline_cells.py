"""Find cells by a difference of Gaussians."""

from voxmill.evaluation.find_baseline_cells import find_baseline_cells

if __name__ == "__main__":
    find_baseline_cells(
        volume=snakemake.params.source,
        fingerprint=snakemake.params.fingerprint,
        truth_path=snakemake.input.truth,
        output_path=snakemake.output.cells,
        settings=snakemake.params.settings,
        threads=snakemake.threads,
        part=snakemake.params.part,
        box=snakemake.params.box,
        code=snakemake.params.code,
        log_path=snakemake.log[0],
    )
