"""One volume again."""


rule stitch:
    input:
        W.targets.per_network("probability.ome.tif"),


rule check_slab:
    input:
        plan="results/{volume}/plan.json",
        predictions=W.predictions.of_slab,
    output:
        manifest="results/{volume}/{network}/slabs/{slab}.json",
    log:
        "logs/{volume}/{network}/check_slab/{slab}.log",
    conda:
        "../envs/voxmill.yaml"
    resources:
        mem_mb=W.resources.stitch_memory_mb,
    params:
        predictions="results/{volume}/{network}/predictions",
        model=W.predictions.model_digest,
        part=W.volumes.part,
        code=source_digest("voxmill.tiles.check_slab"),
    message:
        "Checking the predictions of slab {wildcards.slab} of {wildcards.volume}"
    script:
        "../scripts/check_slab.py"


rule stitch_volume:
    input:
        plan="results/{volume}/plan.json",
        manifests=W.predictions.slab_manifests,
    output:
        probability="results/{volume}/{network}/probability.ome.tif",
    log:
        "logs/{volume}/{network}/stitch_volume.log",
    conda:
        "../envs/voxmill.yaml"
    resources:
        mem_mb=W.resources.stitch_memory_mb,
    params:
        compression=W.predictions.compression,
        code=source_digest("voxmill.tiles.stitch_volume"),
    message:
        "Stitching the predictions of {wildcards.network} on {wildcards.volume}"
    script:
        "../scripts/stitch_volume.py"
