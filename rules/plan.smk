"""The plan of a volume: its grid of tiles and their halo."""


rule measure_halo:
    input:
        volume=volume_file,
        statistics="results/{volume}/statistics.json",
        weights=network_weights,
        card=network_card,
    output:
        halo="results/{volume}/{network}/halo.json",
    log:
        "logs/{volume}/{network}/measure_halo.log",
    conda:
        "../envs/voxmill.yaml"
    threads: 8
    resources:
        gpu=gpus_per_prediction,
        mem_mb=predict_memory_mb,
        runtime=predict_minutes,
    params:
        source=volume_arguments,
        fingerprint=volume_fingerprint,
        settings=halo_settings,
        prediction=CONFIG.settings["prediction"],
        code=source_digest("voxmill.prediction.measure_halo"),
    message:
        "Measuring how much context {wildcards.network} needs on {wildcards.volume}"
    script:
        "../scripts/measure_halo.py"


rule plan_volume:
    input:
        volume=volume_file,
        halos=measured_halos,
        truth=checked_truth,
    output:
        plan="results/{volume}/plan.json",
    log:
        "logs/{volume}/plan_volume.log",
    conda:
        "../envs/voxmill.yaml"
    resources:
        mem_mb=500,
    params:
        source=volume_arguments,
        fingerprint=volume_fingerprint,
        tile_shape_vox=CONFIG.tile_shape_vox,
        halo_vox=halo_vox,
        code=source_digest("voxmill.tiles.plan_volume"),
    message:
        "Planning the tiles of {wildcards.volume}"
    script:
        "../scripts/plan_volume.py"
