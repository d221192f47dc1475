"""From probability to centroids."""


rule cells:
    input:
        W.targets.per_network("cells.csv"),


rule find_cells:
    input:
        probability="results/{volume}/{network}/probability.ome.zarr/zarr.json",
        recorded=RECORDS,
    output:
        cells=update("results/{volume}/{network}/cells.csv"),
    log:
        "logs/{volume}/{network}/find_cells.log",
    conda:
        "../envs/voxmill.yaml"
    threads: 8
    resources:
        mem_mb=8000,
    params:
        settings=W.evaluations.cell_settings,
        own_grid=W.volumes.own_grid,
        part=W.volumes.part,
        box=W.volumes.box,
        voxel_size_um=W.volumes.voxel_size_um,
        code=source_digest("voxmill.cells.find_cells"),
    message:
        "Finding the cells of {wildcards.volume} in the prediction of {wildcards.network}"
    script:
        "../scripts/find_cells.py"


rule find_baseline_cells:
    input:
        volume=W.volumes.file,
        truth="results/{volume}/truth.csv",
        recorded=RECORDS,
    output:
        cells=update("results/{volume}/baseline/cells.csv"),
    log:
        "logs/{volume}/find_baseline_cells.log",
    conda:
        "../envs/voxmill.yaml"
    threads: 8
    resources:
        mem_mb=8000,
    params:
        source=W.volumes.own_arguments,
        fingerprint=W.volumes.fingerprint,
        settings=W.evaluations.baseline_settings,
        part=W.volumes.own_part,
        box=W.volumes.box,
        code=source_digest("voxmill.evaluation.find_baseline_cells"),
    message:
        "Finding the cells of {wildcards.volume} by a difference of Gaussians"
    script:
        "../scripts/find_baseline_cells.py"
