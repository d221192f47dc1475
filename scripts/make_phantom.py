"""Make a synthetic volume and its truth."""

from voxmill.phantoms.make_phantom import write_phantom

if __name__ == "__main__":
    write_phantom(
        settings=snakemake.params.settings,
        volume_path=snakemake.output.volume,
        truth_path=snakemake.output.truth,
        log_path=snakemake.log[0],
    )
