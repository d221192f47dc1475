"""One volume again."""


rule stitch:
    input:
        per_network("probability.ome.tif"),


rule check_slab:
    message:
        "Checking the predictions of slab {wildcards.slab} of {wildcards.volume}"
    input:
        plan="results/{volume}/plan.json",
        predictions=slab_predictions,
    output:
        manifest="results/{volume}/{network}/slabs/{slab}.json",
    params:
        model=model_digest,
        code=source_digest("voxmill.stitching"),
    log:
        "logs/{volume}/{network}/check_slab/{slab}.log",
    resources:
        mem_mb=stitch_memory_mb,
    conda:
        "../envs/voxmill.yaml"
    script:
        "../scripts/check_slab.py"


rule stitch_volume:
    message:
        "Stitching the predictions of {wildcards.network} on {wildcards.volume}"
    input:
        plan="results/{volume}/plan.json",
        manifests=slab_manifests,
    output:
        probability="results/{volume}/{network}/probability.ome.tif",
    params:
        compression=CONFIG.settings["stitching"]["compression"],
        code=source_digest("voxmill.stitching"),
    log:
        "logs/{volume}/{network}/stitch_volume.log",
    benchmark:
        "logs/{volume}/{network}/stitch_volume.tsv"
    resources:
        mem_mb=stitch_memory_mb,
    conda:
        "../envs/voxmill.yaml"
    script:
        "../scripts/stitch_volume.py"
