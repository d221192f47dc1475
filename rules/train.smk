"""A network from volumes with ground truth: `snakemake train`."""


rule train:
    input:
        W.targets.models(),


rule train_network:
    input:
        files=W.trainings.files,
        start=W.trainings.start,
        recorded=RECORDS,
    output:
        weights=update("models/{trained}.safetensors"),
        card=update("models/{trained}.json"),
        curves=update("results/training/{trained}/curves.csv"),
        figure=update("results/training/{trained}/curves.png"),
    log:
        "logs/training/{trained}.log",
    conda:
        "../envs/voxmill.yaml"
    threads: 8
    resources:
        gpu=W.resources.training_gpus,
        mem_mb=W.resources.training_memory_mb,
    params:
        volumes=W.trainings.volumes,
        settings=W.trainings.settings,
        fingerprints=W.trainings.fingerprints,
        # Not an output: a failed or killed job keeps it, and the next one resumes from it.
        checkpoint="results/training/{trained}/checkpoint.safetensors",
        code=source_digest("voxmill.training.train_network"),
    message:
        "Training the network {wildcards.trained}"
    script:
        "../scripts/train_network.py"
