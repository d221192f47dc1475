"""Evaluate one stage of a network's layers on one tile."""

from voxmill.engine.stage import evaluate_stage
from voxmill.records import record_path

if __name__ == "__main__":
    evaluate_stage(
        tile_path=snakemake.input.tile,
        plan_path=snakemake.input.plan,
        statistics_path=snakemake.input.statistics,
        weights_path=snakemake.input.weights,
        output_path=snakemake.output.maps,
        settings=snakemake.params.settings,
        layers=snakemake.params.layers,
        code=snakemake.params.code,
        threads=snakemake.threads,
        gpus=snakemake.resources.get("gpu", 0),
        record_path=record_path(snakemake.log[0]),
        log_path=snakemake.log[0],
    )
