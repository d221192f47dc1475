"""One GPU job per tile, or for several tiles."""


rule predict:
    input:
        W.targets.predictions(),


rule predict_tile:
    input:
        tiles=W.cutting.of_tile,
        plan="results/{volume}/plan.json",
        statistics="results/{volume}/statistics.json",
        blocks="results/{volume}/grey_blocks.npz",
        weights=W.predictions.weights,
        card=W.predictions.card,
        recorded=RECORDS,
    output:
        # The shard's identity and checksum; it is not removed before the job, which keeps a shard
        # that is whole and of the same identity.
        identity=update("results/{volume}/{network}/predictions/{tile}.json"),
    log:
        "logs/{volume}/{network}/predict_tile/{tile}.log",
    conda:
        "../envs/voxmill.yaml"
    threads: 8
    resources:
        gpu=W.resources.prediction_gpus,
        mem_mb=W.resources.prediction_memory_mb,
        runtime=W.resources.prediction_minutes,
    params:
        source=W.cutting.source,
        image="results/{volume}/{network}/probability.ome.zarr",
        storage=W.predictions.storage,
        settings=W.predictions.settings,
        # Stored with predictions, so that those of one rule are whole for the other.
        identity=source_digest("voxmill.prediction.predictor"),
        model=W.predictions.model,
        code=source_digest("voxmill.prediction.predict_tile"),
    message:
        "Predicting tile {wildcards.tile} of {wildcards.volume} with {wildcards.network}"
    script:
        "../scripts/predict_tile.py"


# The predictions are no outputs: Snakemake would remove those that are whole when a job fails.
rule predict_batch:
    input:
        tiles=W.cutting.of_batch,
        plan="results/{volume}/plan.json",
        statistics="results/{volume}/statistics.json",
        blocks="results/{volume}/grey_blocks.npz",
        weights=W.predictions.weights,
        card=W.predictions.card,
        recorded=RECORDS,
    output:
        manifest="results/{volume}/{network}/batches/{batch}.json",
    log:
        "logs/{volume}/{network}/predict_batch/{batch}.log",
    conda:
        "../envs/voxmill.yaml"
    threads: 8
    resources:
        gpu=W.resources.prediction_gpus,
        mem_mb=W.resources.batch_memory_mb,
        runtime=W.resources.batch_minutes,
    params:
        source=W.cutting.source,
        tiles=W.predictions.tiles_of_batch,
        predictions="results/{volume}/{network}/predictions",
        image="results/{volume}/{network}/probability.ome.zarr",
        storage=W.predictions.storage,
        settings=W.predictions.settings,
        identity=source_digest("voxmill.prediction.predictor"),
        model=W.predictions.model,
        code=source_digest("voxmill.prediction.predict_batch"),
    message:
        "Predicting the tiles from {wildcards.batch} on of {wildcards.volume} with {wildcards.network}"
    script:
        "../scripts/predict_batch.py"
