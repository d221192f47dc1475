"""The plan of a volume: its grid of tiles and their halo."""


rule measure_halo:
    input:
        volume=W.volumes.file,
        statistics="results/{volume}/statistics.json",
        blocks="results/{volume}/grey_blocks.npz",
        weights=W.predictions.weights,
        card=W.predictions.card,
        recorded=RECORDS,
    output:
        halo=update("results/{volume}/{network}/halo.json"),
    log:
        "logs/{volume}/{network}/measure_halo.log",
    conda:
        "../envs/voxmill.yaml"
    threads: 8
    resources:
        gpu=W.resources.prediction_gpus,
        mem_mb=W.resources.surroundings_memory_mb,
        runtime=W.resources.prediction_minutes,
    params:
        source=W.volumes.arguments,
        fingerprint=W.volumes.fingerprint,
        settings=W.predictions.halo_settings,
        prediction=W.predictions.settings,
        model=W.predictions.model,
        code=source_digest("voxmill.prediction.measure_halo"),
    message:
        "Measuring the halo that {wildcards.network} needs on {wildcards.volume}"
    script:
        "../scripts/measure_halo.py"


rule plan_volume:
    input:
        volume=W.volumes.file,
        halos=W.predictions.measured_halos,
        recorded=RECORDS,
    output:
        plan="results/{volume}/plan.json",
    log:
        "logs/{volume}/plan_volume.log",
    conda:
        "../envs/voxmill.yaml"
    resources:
        mem_mb=500,
    params:
        source=W.volumes.arguments,
        fingerprint=W.volumes.fingerprint,
        tile_shape_vox=W.config.tile_shape_vox,
        halo_vox=W.predictions.halo_vox,
        forecast=W.cutting.forecast,
        code=source_digest("voxmill.tiles.plan_volume"),
    message:
        "Planning the tiles of {wildcards.volume}"
    script:
        "../scripts/plan_volume.py"
