"""Lay the denoised scans of a BIDS data set out as its derivatives."""

from voxmill.denoising.write_derivatives import write_derivatives

if __name__ == "__main__":
    write_derivatives(
        denoised_paths=snakemake.input.denoised,
        record_paths=snakemake.input.records,
        output_path=snakemake.output.description,
        source=snakemake.params.source,
        suffixes=snakemake.params.suffixes,
        counts=snakemake.params.counts,
        code=snakemake.params.code,
        log_path=snakemake.log[0],
    )
