"""Denoise one scan with a Deep Image Prior."""

from voxmill.denoising.denoise_scan import denoise_scan
from voxmill.runtime.records import record_path

if __name__ == "__main__":
    denoise_scan(
        scan_path=snakemake.input.scan,
        output_path=snakemake.output.denoised,
        record_path=snakemake.output.record,
        history_path=snakemake.output.history,
        planes_path=snakemake.output.planes,
        curves_path=snakemake.output.curves,
        checkpoint_path=snakemake.params.checkpoint,
        settings=snakemake.params.settings,
        devices=snakemake.params.devices,
        volume=snakemake.params.volume,
        fingerprints=snakemake.params.fingerprints,
        reference_path=snakemake.input.reference or None,
        mask_path=snakemake.input.mask or None,
        threads=snakemake.threads,
        job_record_path=record_path(snakemake.log[0]),
        code=snakemake.params.code,
        log_path=snakemake.log[0],
    )
