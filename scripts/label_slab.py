"""Label the cells of one slab of tiles."""

from voxmill.cells.label_slab import label_slab

if __name__ == "__main__":
    label_slab(
        plan_path=snakemake.input.plan,
        cells_path=snakemake.input.cells,
        foreground_path=snakemake.input.foreground,
        source=snakemake.params.source,
        image_path=snakemake.params.image,
        slab=snakemake.wildcards.slab,
        settings=snakemake.params.settings,
        output_path=snakemake.output.manifest,
        part=snakemake.params.part,
        fingerprint=snakemake.params.fingerprint,
        threads=snakemake.threads,
        code=snakemake.params.code,
        log_path=snakemake.log[0],
    )
