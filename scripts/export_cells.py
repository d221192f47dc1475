"""Write cells for other programs."""

from voxmill.cells.export_cells import export_cells

if __name__ == "__main__":
    export_cells(
        format=snakemake.wildcards.format,
        cells_path=snakemake.input.cells,
        output_folder=snakemake.output.folder,
        shape=snakemake.params.shape,
        voxel_size_um=snakemake.params.voxel_size_um,
        images=snakemake.params.images,
        labels_path=snakemake.input.labels or None,
        url=snakemake.params.url,
        box=snakemake.params.box,
        copied=snakemake.params.copied,
        copied_path=snakemake.input.copied or None,
        fingerprint=snakemake.params.fingerprint,
        code=snakemake.params.code,
        log_path=snakemake.log[0],
    )
