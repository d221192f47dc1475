"""A certificate: what the cutting into tiles changed at its seams."""


rule seams:
    input:
        W.targets.per_network("seams.json"),


rule measure_seams:
    input:
        volume=W.volumes.file,
        plan="results/{volume}/plan.json",
        statistics="results/{volume}/statistics.json",
        blocks="results/{volume}/grey_blocks.npz",
        weights=W.predictions.weights,
        card=W.predictions.card,
        probability="results/{volume}/{network}/probability.ome.zarr/zarr.json",
        recorded=RECORDS,
    output:
        seams=update("results/{volume}/{network}/seams.json"),
    log:
        "logs/{volume}/{network}/measure_seams.log",
    conda:
        "../envs/voxmill.yaml"
    threads: 8
    resources:
        gpu=W.resources.prediction_gpus,
        mem_mb=W.resources.surroundings_memory_mb,
    params:
        source=W.volumes.arguments,
        settings=W.predictions.halo_settings,
        cells=W.evaluations.cell_settings,
        objects=W.objects.settings,
        prediction=W.predictions.settings,
        part=W.volumes.part,
        model=W.predictions.model,
        code=source_digest("voxmill.evaluation.measure_seams"),
    message:
        "Looking at the seams of {wildcards.network} on {wildcards.volume}"
    script:
        "../scripts/measure_seams.py"
