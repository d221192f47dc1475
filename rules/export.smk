"""Cells for other programs."""


rule export:
    input:
        W.targets.exports(),


rule export_cells:
    input:
        cells="results/{volume}/{network}/cells.csv",
        probability="results/{volume}/{network}/probability.ome.zarr/zarr.json",
        labels=W.evaluations.labels_if_any,
        copied=W.volumes.copied_file,
        recorded=RECORDS,
    output:
        folder=directory("results/{volume}/{network}/export/{format}"),
    log:
        "logs/{volume}/{network}/export_cells/{format}.log",
    conda:
        "../envs/voxmill.yaml"
    resources:
        mem_mb=4000,
    params:
        shape=W.volumes.own_shape,
        voxel_size_um=W.volumes.own_voxel_size_um,
        images=W.evaluations.images_to_show,
        url=W.evaluations.export_url,
        box=W.evaluations.export_box,
        copied=W.volumes.copied,
        fingerprint=W.volumes.fingerprint,
        code=source_digest("voxmill.cells.export_cells"),
    message:
        "Writing the cells that {wildcards.network} found in {wildcards.volume} for {wildcards.format}"
    script:
        "../scripts/export_cells.py"


rule export_table:
    input:
        cells="results/{volume}/{network}/cells_measured.csv",
        recorded=RECORDS,
    output:
        cells=update("results/{volume}/{network}/cells_measured.parquet"),
    log:
        "logs/{volume}/{network}/export_table.log",
    conda:
        "../envs/voxmill.yaml"
    resources:
        mem_mb=4000,
    params:
        code=source_digest("voxmill.cells.export_table"),
    message:
        "Writing the measured cells of {wildcards.volume} as Parquet"
    script:
        "../scripts/export_table.py"
