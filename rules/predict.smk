"""One GPU job per tile, or for several tiles."""


rule predict:
    input:
        predictions(),


rule predict_tile:
    input:
        tile="results/{volume}/tiles/{tile}.tif",
        plan="results/{volume}/plan.json",
        statistics="results/{volume}/statistics.json",
        weights=network_weights,
        card=network_card,
        batch=batch_of_tile,
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
        code=source_digest("voxmill.prediction.predictor"),
    message:
        "Predicting tile {wildcards.tile} of {wildcards.volume} with {wildcards.network}"
    script:
        "../scripts/predict_tile.py"


# The predictions are no outputs: Snakemake would remove those that are whole when a job fails.
rule predict_batch:
    input:
        tiles=tiles_of_batch,
        plan="results/{volume}/plan.json",
        statistics="results/{volume}/statistics.json",
        weights=network_weights,
        card=network_card,
    output:
        # Not removed before the job, which takes it as the sign to make all tiles anew.
        manifest=update("results/{volume}/{network}/batches/{batch}.json"),
    log:
        "logs/{volume}/{network}/predict_batch/{batch}.log",
    benchmark:
        "logs/{volume}/{network}/predict_batch/{batch}.tsv"
    conda:
        "../envs/voxmill.yaml"
    threads: 8
    resources:
        gpu=gpus_per_prediction,
        mem_mb=batch_memory_mb,
        runtime=batch_minutes,
    params:
        predictions="results/{volume}/{network}/predictions",
        settings=CONFIG.settings["prediction"],
        code=source_digest("voxmill.prediction.predictor"),
    message:
        "Predicting {input.tiles} with {wildcards.network}"
    script:
        "../scripts/predict_batch.py"
