"""Plan the tiles of a volume."""

from voxmill.tiles.plan_volume import plan_volume

if __name__ == "__main__":
    plan_volume(
        volume=snakemake.params.source,
        fingerprint=snakemake.params.fingerprint,
        tile_shape_vox=snakemake.params.tile_shape_vox,
        halo_vox=snakemake.params.halo_vox,
        halo_paths=snakemake.input.halos,
        forecast=snakemake.params.forecast,
        output_path=snakemake.output.plan,
        code=snakemake.params.code,
        log_path=snakemake.log[0],
    )
