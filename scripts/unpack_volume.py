"""Unpack a volume whose file allows no windows."""

from voxmill.volumes.unpack_volume import unpack_volume

if __name__ == "__main__":
    unpack_volume(
        volume=snakemake.params.source,
        fingerprint=snakemake.params.fingerprint,
        output_path=snakemake.output.volume,
        code=snakemake.params.code,
        log_path=snakemake.log[0],
    )
