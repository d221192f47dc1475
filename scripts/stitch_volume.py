"""Stitch predictions into one volume."""

from voxmill.tiles.stitch_volume import stitch_volume

if __name__ == "__main__":
    stitch_volume(
        plan_path=snakemake.input.plan,
        manifest_paths=snakemake.input.manifests,
        output_path=snakemake.output.probability,
        compression=snakemake.params.compression,
        log_path=snakemake.log[0],
    )
