"""The network from volumes with a truth: `snakemake train`."""


rule train:
    input:
        expand("models/{trained}.safetensors", trained=CONFIG.settings["training"]),


rule train_network:
    input:
        files=training_files,
        start=training_start,
    output:
        weights="models/{trained}.safetensors",
        card="models/{trained}.json",
        curves="results/training/{trained}/curves.csv",
        figure="results/training/{trained}/curves.png",
    log:
        "logs/training/{trained}.log",
    benchmark:
        "logs/training/{trained}.tsv"
    conda:
        "../envs/voxmill.yaml"
    threads: 8
    resources:
        gpu=gpus_per_prediction,
        mem_mb=8000,
    params:
        volumes=training_volumes,
        settings=training_settings,
        # Not an output: a failed or killed job keeps it, and the next one resumes from it.
        checkpoint="results/training/{trained}/checkpoint.safetensors",
        code=source_digest("voxmill.training.train_network"),
    message:
        "Training the network {wildcards.trained}"
    script:
        "../scripts/train_network.py"
