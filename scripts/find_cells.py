"""Find cells in a stitched probability volume."""

from voxmill.cells.find_cells import find_cells

if __name__ == "__main__":
    find_cells(
        probability_path=snakemake.input.probability,
        output_path=snakemake.output.cells,
        settings=snakemake.params.settings,
        voxel_size_um=snakemake.params.voxel_size_um,
        own_grid=snakemake.params.own_grid,
        part=snakemake.params.part,
        box=snakemake.params.box,
        threads=snakemake.threads,
        code=snakemake.params.code,
        log_path=snakemake.log[0],
    )
