"""Evaluate cells against ground truth."""

from voxmill.evaluation.evaluate_cells import evaluate_cells

if __name__ == "__main__":
    evaluate_cells(
        plan_path=snakemake.input.plan,
        truth_path=snakemake.input.truth,
        cells_path=snakemake.input.cells,
        json_path=snakemake.output.evaluation,
        csv_path=snakemake.output.tiles,
        matches_path=snakemake.output.points,
        settings=snakemake.params.settings,
        statistics_path=snakemake.input.statistics,
        weights_path=snakemake.input.weights or None,
        pilot=snakemake.params.pilot,
        code=snakemake.params.code,
        log_path=snakemake.log[0],
    )
