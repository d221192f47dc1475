"""Draw found and true objects, and their quality by size."""

from voxmill.evaluation.draw_instances import draw_instances

if __name__ == "__main__":
    draw_instances(
        volume=snakemake.params.source,
        truth_path=snakemake.input.truth,
        labels_path=snakemake.input.labels,
        instances_path=snakemake.input.instances,
        voxel_size_um=snakemake.params.voxel_size_um,
        own_grid=snakemake.params.own_grid,
        output_path=snakemake.output.picture,
        threads=snakemake.threads,
        code=snakemake.params.code,
        log_path=snakemake.log[0],
    )
