"""Write a probability image as one OME-TIFF."""

from voxmill.tiles.export_tiff import export_tiff

if __name__ == "__main__":
    export_tiff(
        probability_path=snakemake.input.probability,
        output_path=snakemake.output.tiff,
        code=snakemake.params.code,
        log_path=snakemake.log[0],
    )
