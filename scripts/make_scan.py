"""Make a synthetic scan with its noise-free truth."""

from voxmill.phantoms.make_scan import make_scan

if __name__ == "__main__":
    make_scan(
        scan_path=snakemake.output.scan,
        reference_path=snakemake.output.reference,
        mask_path=snakemake.output.mask,
        settings=snakemake.params.settings,
        code=snakemake.params.code,
        log_path=snakemake.log[0],
    )
