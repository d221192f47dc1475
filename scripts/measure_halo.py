"""Measure how much context a network needs on a volume."""

from voxmill.prediction.measure_halo import measure_halo

if __name__ == "__main__":
    measure_halo(
        volume=snakemake.params.source,
        fingerprint=snakemake.params.fingerprint,
        statistics_path=snakemake.input.statistics,
        weights_path=snakemake.input.weights,
        output_path=snakemake.output.halo,
        settings=snakemake.params.settings,
        prediction=snakemake.params.prediction,
        threads=snakemake.threads,
        gpus=snakemake.resources.get("gpu", 0),
        code=snakemake.params.code,
        log_path=snakemake.log[0],
    )
