"""A certificate: what the cutting into tiles changed at its seams."""


rule seams:
    input:
        per_network("seams.json"),


rule measure_seams:
    input:
        volume=volume_file,
        plan="results/{volume}/plan.json",
        statistics="results/{volume}/statistics.json",
        weights=network_weights,
        card=network_card,
        probability="results/{volume}/{network}/probability.ome.tif",
    output:
        seams="results/{volume}/{network}/seams.json",
    log:
        "logs/{volume}/{network}/measure_seams.log",
    conda:
        "../envs/voxmill.yaml"
    threads: 8
    resources:
        gpu=gpus_per_prediction,
        mem_mb=predict_memory_mb,
    params:
        source=volume_arguments,
        settings=seam_settings,
        cells=cell_settings,
        prediction=CONFIG.settings["prediction"],
        code=source_digest("voxmill.evaluation.measure_seams"),
    message:
        "Looking at the seams of {wildcards.network} on {wildcards.volume}"
    script:
        "../scripts/measure_seams.py"
