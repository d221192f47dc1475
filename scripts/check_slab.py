"""Verify the predictions of one slab of tiles."""

from voxmill.tiles.check_slab import check_slab

if __name__ == "__main__":
    check_slab(
        plan_path=snakemake.input.plan,
        slab=snakemake.wildcards.slab,
        predictions_folder=snakemake.params.predictions,
        image_path=snakemake.params.image,
        storage=snakemake.params.storage,
        model=snakemake.params.model,
        output_path=snakemake.output.manifest,
        part=snakemake.params.part,
        threads=snakemake.threads,
        log_path=snakemake.log[0],
    )
