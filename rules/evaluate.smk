"""Against ground truth."""


rule evaluate:
    input:
        W.targets.per_method("evaluation.json"),


rule evaluate_cells:
    input:
        plan="results/{volume}/plan.json",
        truth="results/{volume}/truth.csv",
        cells="results/{volume}/{method}/cells.csv",
        statistics="results/{volume}/statistics.json",
        blocks="results/{volume}/grey_blocks.npz",
        weights=W.evaluations.weights_if_any,
        card=W.evaluations.card_if_any,
        recorded=RECORDS,
    output:
        evaluation="results/{volume}/{method}/evaluation.json",
        tiles="results/{volume}/{method}/evaluation.csv",
        points="results/{volume}/{method}/matches.csv",
    log:
        "logs/{volume}/{method}/evaluate_cells.log",
    conda:
        "../envs/voxmill.yaml"
    resources:
        mem_mb=2000,
    params:
        settings=W.evaluations.settings,
        pilot=W.predictions.is_pilot,
        model=W.evaluations.model_if_any,
        code=source_digest("voxmill.evaluation.evaluate_cells"),
    message:
        "Evaluating the cells of {wildcards.method} on {wildcards.volume}"
    script:
        "../scripts/evaluate_cells.py"
