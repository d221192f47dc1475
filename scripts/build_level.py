"""Make a part of one level of a pyramid."""

from voxmill.tiles.build_level import build_level

if __name__ == "__main__":
    build_level(
        plan_path=snakemake.input.plan,
        manifest_paths=snakemake.input.manifests,
        image_path=snakemake.params.image,
        storage=snakemake.params.storage,
        how=snakemake.params.how,
        level=int(snakemake.wildcards.level),
        row=int(snakemake.wildcards.row),
        output_path=snakemake.output.manifest,
        log_path=snakemake.log[0],
    )
