"""Cut tiles with their halos out of a volume."""

from voxmill.tiles.cut_tiles import cut_tiles

if __name__ == "__main__":
    cut_tiles(
        volume=snakemake.params.source,
        plan_path=snakemake.input.plan,
        tiles=snakemake.params.tiles,
        folder=snakemake.params.folder,
        output_path=snakemake.output.tiles,
        code=snakemake.params.code,
        log_path=snakemake.log[0],
    )
