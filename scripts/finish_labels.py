"""Make one image of labelled slabs."""

from voxmill.cells.finish_labels import finish_labels

if __name__ == "__main__":
    finish_labels(
        plan_path=snakemake.input.plan,
        cells_path=snakemake.input.cells,
        manifest_paths=list(snakemake.input.manifests),
        image_path=snakemake.params.image,
        probability_path=snakemake.input.probability,
        pilot=snakemake.params.pilot,
        threads=snakemake.threads,
        log_path=snakemake.log[0],
    )
