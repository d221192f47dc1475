"""Compare a stitched volume at its seams with a prediction that sees more context."""

from voxmill.evaluation.measure_seams import measure_seams

if __name__ == "__main__":
    measure_seams(
        volume=snakemake.params.source,
        plan_path=snakemake.input.plan,
        statistics_path=snakemake.input.statistics,
        weights_path=snakemake.input.weights,
        probability_path=snakemake.input.probability,
        output_path=snakemake.output.seams,
        settings=snakemake.params.settings,
        cells=snakemake.params.cells,
        objects=snakemake.params.objects,
        prediction=snakemake.params.prediction,
        threads=snakemake.threads,
        gpus=snakemake.resources.get("gpu", 0),
        part=snakemake.params.part,
        code=snakemake.params.code,
        log_path=snakemake.log[0],
    )
