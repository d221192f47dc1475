"""Draw what a network got wrong."""

from voxmill.evaluation.draw_mistakes import draw_mistakes

if __name__ == "__main__":
    draw_mistakes(
        volume=snakemake.params.source,
        fingerprint=snakemake.params.fingerprint,
        probability_path=snakemake.input.probability,
        matches_path=snakemake.input.matches,
        output_path=snakemake.output.picture,
        max_distance_um=snakemake.params.max_distance_um,
        code=snakemake.params.code,
        log_path=snakemake.log[0],
    )
