"""Draw the cells found in a volume."""

from voxmill.evaluation.draw_overview import draw_overview

if __name__ == "__main__":
    draw_overview(
        volume=snakemake.params.source,
        fingerprint=snakemake.params.fingerprint,
        probability_path=snakemake.input.probability,
        cells_path=snakemake.input.cells,
        matches_path=snakemake.input.get("matches"),
        statistics_path=snakemake.input.statistics,
        weights_path=snakemake.input.weights,
        output_path=snakemake.output.picture,
        box=snakemake.params.box,
        code=snakemake.params.code,
        log_path=snakemake.log[0],
    )
