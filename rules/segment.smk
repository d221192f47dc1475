"""From centroids to the voxels of each cell."""


rule segment:
    input:
        W.objects.targets(),


# Labels of a tile depend on its surroundings alone: slabs are labelled on their own.
rule label_slab:
    input:
        plan="results/{volume}/plan.json",
        cells="results/{volume}/{network}/cells.csv",
        foreground=W.objects.foreground,
        recorded=RECORDS,
    output:
        manifest=update("results/{volume}/{network}/labels/{slab}.json"),
    log:
        "logs/{volume}/{network}/label_slab/{slab}.log",
    conda:
        "../envs/voxmill.yaml"
    threads: 4
    resources:
        mem_mb=W.objects.slab_memory_mb,
    params:
        image="results/{volume}/{network}/labels.ome.zarr",
        source=W.objects.source,
        fingerprint=W.volumes.fingerprint,
        settings=W.objects.settings,
        part=W.volumes.part,
        code=source_digest("voxmill.cells.label_slab"),
    message:
        "Labelling the cells of slab {wildcards.slab} of {wildcards.volume}"
    script:
        "../scripts/label_slab.py"


rule finish_labels:
    input:
        plan="results/{volume}/plan.json",
        cells="results/{volume}/{network}/cells.csv",
        manifests=W.pyramids.of_labels,
        probability="results/{volume}/{network}/probability.ome.zarr/zarr.json",
        recorded=RECORDS,
    output:
        labels="results/{volume}/{network}/labels.ome.zarr/zarr.json",
    log:
        "logs/{volume}/{network}/finish_labels.log",
    conda:
        "../envs/voxmill.yaml"
    threads: 4
    resources:
        mem_mb=4000,
    params:
        image="results/{volume}/{network}/labels.ome.zarr",
        pilot=W.predictions.is_pilot,
        code=source_digest("voxmill.cells.finish_labels"),
    message:
        "Making one image of the labels of {wildcards.volume}"
    script:
        "../scripts/finish_labels.py"


rule measure_label_seams:
    input:
        plan="results/{volume}/plan.json",
        cells="results/{volume}/{network}/cells.csv",
        foreground=W.objects.foreground,
        labels="results/{volume}/{network}/labels.ome.zarr/zarr.json",
        recorded=RECORDS,
    output:
        seams=update("results/{volume}/{network}/label_seams.json"),
    log:
        "logs/{volume}/{network}/measure_label_seams.log",
    conda:
        "../envs/voxmill.yaml"
    resources:
        mem_mb=W.objects.seam_memory_mb,
    params:
        source=W.objects.source,
        fingerprint=W.volumes.fingerprint,
        objects=W.objects.settings,
        part=W.volumes.part,
        code=source_digest("voxmill.evaluation.measure_label_seams"),
    message:
        "Looking at the seams of the labels of {wildcards.volume}"
    script:
        "../scripts/measure_label_seams.py"


rule measure_cells:
    input:
        cells="results/{volume}/{network}/cells.csv",
        labels="results/{volume}/{network}/labels.ome.zarr/zarr.json",
        volume=W.volumes.file,
        recorded=RECORDS,
    output:
        cells=update("results/{volume}/{network}/cells_measured.csv"),
    log:
        "logs/{volume}/{network}/measure_cells.log",
    conda:
        "../envs/voxmill.yaml"
    threads: 4
    resources:
        mem_mb=4000,
    params:
        source=W.volumes.arguments,
        fingerprint=W.volumes.fingerprint,
        settings=W.objects.settings,
        code=source_digest("voxmill.cells.measure_cells"),
    message:
        "Measuring the cells of {wildcards.volume}"
    script:
        "../scripts/measure_cells.py"


rule evaluate_instances:
    input:
        truth=W.objects.truth,
        labels="results/{volume}/{network}/labels.ome.zarr/zarr.json",
        recorded=RECORDS,
    output:
        evaluation=update("results/{volume}/{network}/instances.json"),
    log:
        "logs/{volume}/{network}/evaluate_instances.log",
    conda:
        "../envs/voxmill.yaml"
    threads: 4
    resources:
        mem_mb=4000,
    params:
        volume=W.volumes.truth_volume,
        truth_fingerprint=W.volumes.truth_fingerprint,
        voxel_size_um=W.volumes.voxel_size_um,
        own_grid=W.volumes.own_grid,
        code=source_digest("voxmill.evaluation.evaluate_instances"),
    message:
        "Evaluating the labels of {wildcards.network} on {wildcards.volume}"
    script:
        "../scripts/evaluate_instances.py"
