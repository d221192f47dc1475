"""Compare stored labels at their seams with labels of windows in one piece."""

from voxmill.evaluation.measure_label_seams import measure_label_seams

if __name__ == "__main__":
    measure_label_seams(
        plan_path=snakemake.input.plan,
        cells_path=snakemake.input.cells,
        foreground_path=snakemake.input.foreground,
        source=snakemake.params.source,
        labels_path=snakemake.input.labels,
        output_path=snakemake.output.seams,
        settings={},
        objects=snakemake.params.objects,
        part=snakemake.params.part,
        fingerprint=snakemake.params.fingerprint,
        code=snakemake.params.code,
        log_path=snakemake.log[0],
    )
