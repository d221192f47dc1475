"""Predict one tile with a trained network."""

from voxmill.prediction.predict_tile import predict_tile
from voxmill.runtime.records import record_path

if __name__ == "__main__":
    predict_tile(
        tile=snakemake.wildcards.tile,
        source=snakemake.params.source,
        plan_path=snakemake.input.plan,
        statistics_path=snakemake.input.statistics,
        weights_path=snakemake.input.weights,
        output_path=snakemake.output.identity,
        image_path=snakemake.params.image,
        storage=snakemake.params.storage,
        settings=snakemake.params.settings,
        code=snakemake.params.identity,
        threads=snakemake.threads,
        gpus=snakemake.resources.get("gpu", 0),
        record_path=record_path(snakemake.log[0]),
        log_path=snakemake.log[0],
    )
