"""Make a synthetic volume and its truth."""

from voxmill.phantoms.make_phantom import make_phantom

if __name__ == "__main__":
    make_phantom(
        settings=snakemake.params.settings,
        volume_path=snakemake.output.volume,
        truth_path=snakemake.output.truth,
        labels_path=snakemake.output.labels,
        code=snakemake.params.code,
        log_path=snakemake.log[0],
    )
