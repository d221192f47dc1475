"""Write a probability image as one OME-TIFF."""

from voxmill.tiles.export_tiff import export_tiff

if __name__ == "__main__":
    export_tiff(
        image_path=snakemake.input.image,
        how=snakemake.params.how,
        output_path=snakemake.output.tiff,
        code=snakemake.params.code,
        log_path=snakemake.log[0],
    )
