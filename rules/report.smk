"""Figures and tables for the report."""


rule draw_overview:
    input:
        volume=W.volumes.file,
        probability="results/{volume}/{network}/probability.ome.zarr/zarr.json",
        cells="results/{volume}/{network}/cells.csv",
        matches=W.evaluations.matches_if_any,
        statistics="results/{volume}/statistics.json",
        blocks="results/{volume}/grey_blocks.npz",
        weights=W.predictions.weights,
        card=W.predictions.card,
        recorded=RECORDS,
    output:
        picture=report(
            "results/{volume}/{network}/overview.png",
            category="{volume}",
            labels={"network": "{network}", "figure": "overview"},
            caption="../docs/captions/overview.rst",
        ),
    log:
        "logs/{volume}/{network}/draw_overview.log",
    conda:
        "../envs/voxmill.yaml"
    resources:
        mem_mb=4000,
    params:
        source=W.volumes.arguments,
        fingerprint=W.volumes.fingerprint,
        box=W.volumes.box,
        code=source_digest("voxmill.evaluation.draw_overview"),
    message:
        "Drawing the cells that {wildcards.network} found in {wildcards.volume}"
    script:
        "../scripts/draw_overview.py"


rule compare_methods:
    input:
        evaluations=W.evaluations.of_volume,
        recorded=RECORDS,
    output:
        table=report(
            "results/{volume}/comparison.html",
            category="{volume}",
            labels={"network": "all", "figure": "comparison"},
            caption="../docs/captions/comparison.rst",
        ),
    log:
        "logs/{volume}/compare_methods.log",
    conda:
        "../envs/voxmill.yaml"
    resources:
        mem_mb=1000,
    params:
        methods=W.evaluations.methods,
        code=source_digest("voxmill.evaluation.compare_methods"),
    message:
        "Comparing the methods on {wildcards.volume}"
    script:
        "../scripts/compare_methods.py"


rule draw_mistakes:
    input:
        volume=W.volumes.file,
        probability="results/{volume}/{network}/probability.ome.zarr/zarr.json",
        matches="results/{volume}/{network}/matches.csv",
        recorded=RECORDS,
    output:
        picture=report(
            "results/{volume}/{network}/mistakes.png",
            category="{volume}",
            labels={"network": "{network}", "figure": "mistakes"},
            caption="../docs/captions/mistakes.rst",
        ),
    log:
        "logs/{volume}/{network}/draw_mistakes.log",
    conda:
        "../envs/voxmill.yaml"
    resources:
        mem_mb=4000,
    params:
        source=W.volumes.arguments,
        fingerprint=W.volumes.fingerprint,
        max_distance_um=W.evaluations.max_distance_um,
        code=source_digest("voxmill.evaluation.draw_mistakes"),
    message:
        "Drawing what {wildcards.network} got wrong in {wildcards.volume}"
    script:
        "../scripts/draw_mistakes.py"


rule draw_instances:
    input:
        volume=W.volumes.file,
        truth=W.objects.truth,
        labels="results/{volume}/{network}/labels.ome.zarr/zarr.json",
        instances="results/{volume}/{network}/instances.json",
        recorded=RECORDS,
    output:
        picture=report(
            "results/{volume}/{network}/instances.png",
            category="{volume}",
            labels={"network": "{network}", "figure": "objects"},
            caption="../docs/captions/instances.rst",
        ),
    log:
        "logs/{volume}/{network}/draw_instances.log",
    conda:
        "../envs/voxmill.yaml"
    threads: 4
    resources:
        mem_mb=4000,
    params:
        source=W.volumes.own_arguments,
        fingerprint=W.volumes.fingerprint,
        truth_fingerprint=W.volumes.truth_fingerprint,
        voxel_size_um=W.volumes.voxel_size_um,
        own_grid=W.volumes.own_grid,
        code=source_digest("voxmill.evaluation.draw_instances"),
    message:
        "Drawing the objects of {wildcards.network} in {wildcards.volume}"
    script:
        "../scripts/draw_instances.py"
