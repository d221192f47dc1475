"""Compare the labels of cells with a ground truth of labels."""

from voxmill.evaluation.evaluate_instances import evaluate_instances

if __name__ == "__main__":
    evaluate_instances(
        truth_path=snakemake.input.truth,
        truth_volume=snakemake.params.volume,
        fingerprint=snakemake.params.truth_fingerprint,
        labels_path=snakemake.input.labels,
        voxel_size_um=snakemake.params.voxel_size_um,
        own_grid=snakemake.params.own_grid,
        output_path=snakemake.output.evaluation,
        threads=snakemake.threads,
        code=snakemake.params.code,
        log_path=snakemake.log[0],
    )
