"""From probability to centroids."""


rule cells:
    input:
        per_network("cells.csv"),


rule find_cells:
    message:
        "Finding the cells of {wildcards.volume} in the prediction of {wildcards.network}"
    input:
        probability="results/{volume}/{network}/probability.ome.tif",
    output:
        cells="results/{volume}/{network}/cells.csv",
    params:
        settings=cell_settings,
        voxel_size_um=volume_voxel_size,
        code=source_digest("voxmill.cells"),
    log:
        "logs/{volume}/{network}/find_cells.log",
    threads: 8
    resources:
        mem_mb=8000,
    conda:
        "../envs/voxmill.yaml"
    script:
        "../scripts/find_cells.py"


rule find_baseline_cells:
    message:
        "Finding the cells of {wildcards.volume} by a difference of Gaussians"
    input:
        volume=volume_file,
        truth="results/{volume}/truth.csv",
    output:
        cells="results/{volume}/baseline/cells.csv",
    params:
        source=volume_arguments,
        fingerprint=volume_fingerprint,
        settings=baseline_settings,
        code=source_digest("voxmill.baselines"),
    log:
        "logs/{volume}/find_baseline_cells.log",
    threads: 8
    resources:
        mem_mb=8000,
    conda:
        "../envs/voxmill.yaml"
    script:
        "../scripts/find_baseline_cells.py"
