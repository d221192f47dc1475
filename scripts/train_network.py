"""Train a network on volumes with a truth."""

from voxmill.training.train_network import train_network

if __name__ == "__main__":
    train_network(
        volumes=snakemake.params.volumes,
        settings=snakemake.params.settings,
        output_path=snakemake.output.weights,
        curves_path=snakemake.output.curves,
        figure_path=snakemake.output.figure,
        checkpoint_path=snakemake.params.checkpoint,
        initial_path=snakemake.input.get("start") or None,
        threads=snakemake.threads,
        log_path=snakemake.log[0],
    )
