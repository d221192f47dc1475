"""Predict several tiles with a trained network."""

from voxmill.prediction.predict_batch import predict_batch
from voxmill.runtime.records import record_path

if __name__ == "__main__":
    predict_batch(
        tiles=snakemake.params.tiles,
        source=snakemake.params.source,
        plan_path=snakemake.input.plan,
        statistics_path=snakemake.input.statistics,
        weights_path=snakemake.input.weights,
        predictions_folder=snakemake.params.predictions,
        image_path=snakemake.params.image,
        storage=snakemake.params.storage,
        manifest_path=snakemake.output.manifest,
        settings=snakemake.params.settings,
        code=snakemake.params.identity,
        threads=snakemake.threads,
        gpus=snakemake.resources.get("gpu", 0),
        record_path=record_path(snakemake.log[0]),
        log_path=snakemake.log[0],
    )
