"""Cut a tile with its halo out of a volume."""

from voxmill.tiles.cut_tile import cut_tile

if __name__ == "__main__":
    cut_tile(
        volume=snakemake.params.source,
        plan_path=snakemake.input.plan,
        tile=snakemake.wildcards.tile,
        output_path=snakemake.output.tile,
        code=snakemake.params.code,
        log_path=snakemake.log[0],
    )
