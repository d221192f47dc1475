"""Check a truth against its volume and write it as points."""

from voxmill.evaluation.check_ground_truth import check_ground_truth

if __name__ == "__main__":
    check_ground_truth(
        truth_path=snakemake.input.truth,
        kind=snakemake.params.kind,
        reading=snakemake.params.reading,
        volume=snakemake.params.volume,
        fingerprint=snakemake.params.truth_fingerprint,
        shape=snakemake.params.shape,
        voxel_size_um=snakemake.params.voxel_size_um,
        output_path=snakemake.output.truth,
        code=snakemake.params.code,
        log_path=snakemake.log[0],
    )
