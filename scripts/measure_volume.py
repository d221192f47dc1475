"""Measure the distribution of a volume's grey values."""

from voxmill.volumes.measure_volume import measure_volume

if __name__ == "__main__":
    measure_volume(
        volume=snakemake.params.source,
        fingerprint=snakemake.params.fingerprint,
        output_path=snakemake.output.statistics,
        blocks_path=snakemake.output.blocks,
        tissue=snakemake.params.tissue,
        tissue_fingerprint=snakemake.params.tissue_fingerprint,
        counted_um=snakemake.params.counted_um,
        code=snakemake.params.code,
        log_path=snakemake.log[0],
    )
