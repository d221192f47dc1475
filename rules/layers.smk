"""Stages of layers on tiles that exchange maps; the last stage is the prediction."""


rule evaluate_stage:
    input:
        tile="results/{volume}/tiles/{tile}.tif",
        plan="results/{volume}/plan.json",
        statistics="results/{volume}/statistics.json",
        weights=network_weights,
        card=network_card,
        maps=maps_before_stage,
    output:
        # Gone when the last tile around has been predicted; --notemp keeps them.
        maps=temp("results/{volume}/{network}/maps/{stage}/{tile}.maps"),
    log:
        "logs/{volume}/{network}/evaluate_stage/{stage}/{tile}.log",
    conda:
        "../envs/voxmill.yaml"
    threads: 8
    resources:
        gpu=gpus_per_prediction,
        mem_mb=predict_memory_mb,
        runtime=predict_minutes,
    params:
        settings=CONFIG.settings["prediction"],
        layers=stage_files,
        code=source_digest("voxmill.engine.stage"),
    message:
        "Evaluating {wildcards.stage} of {wildcards.network} on tile {wildcards.tile}"
    script:
        "../scripts/evaluate_stage.py"
