"""Train a network on volumes with ground truth."""

from voxmill.runtime.records import record_path
from voxmill.training.train_network import train_network

if __name__ == "__main__":
    train_network(
        volumes=snakemake.params.volumes,
        settings=snakemake.params.settings,
        fingerprints=snakemake.params.fingerprints,
        output_path=snakemake.output.weights,
        card_path=snakemake.output.card,
        curves_path=snakemake.output.curves,
        figure_path=snakemake.output.figure,
        checkpoint_path=snakemake.params.checkpoint,
        initial_path=snakemake.input.get("start") or None,
        threads=snakemake.threads,
        gpus=snakemake.resources.get("gpu", 0),
        record_path=record_path(snakemake.log[0]),
        code=snakemake.params.code,
        log_path=snakemake.log[0],
    )
