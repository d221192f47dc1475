"""One GPU job per tile."""


rule predict:
    input:
        per_tile_predictions(),


rule predict_tile:
    input:
        tile="results/{volume}/tiles/{tile}.tif",
        plan="results/{volume}/plan.json",
        statistics="results/{volume}/statistics.json",
        weights=network_weights,
        card=network_card,
    output:
        prediction="results/{volume}/{network}/predictions/{tile}.tif",
    log:
        "logs/{volume}/{network}/predict_tile/{tile}.log",
    benchmark:
        "logs/{volume}/{network}/predict_tile/{tile}.tsv"
    conda:
        "../envs/voxmill.yaml"
    threads: 8
    resources:
        gpu=gpus_per_prediction,
        mem_mb=predict_memory_mb,
        runtime=predict_minutes,
    params:
        settings=CONFIG.settings["prediction"],
        code=source_digest("voxmill.engine.predict"),
    message:
        "Predicting tile {wildcards.tile} of {wildcards.volume} with {wildcards.network}"
    script:
        "../scripts/predict_tile.py"
