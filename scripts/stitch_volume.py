"""Make one image of predictions."""

from voxmill.tiles.stitch_volume import stitch_volume

if __name__ == "__main__":
    stitch_volume(
        plan_path=snakemake.input.plan,
        manifest_paths=snakemake.input.manifests,
        image_path=snakemake.params.image,
        storage=snakemake.params.storage,
        network=snakemake.wildcards.network,
        model=snakemake.params.model,
        pilot=snakemake.params.pilot,
        log_path=snakemake.log[0],
    )
