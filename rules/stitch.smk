"""One volume again."""


rule stitch:
    input:
        per_network("probability.ome.tif"),


rule check_slab:
    input:
        plan="results/{volume}/plan.json",
        predictions=predictions_of_slab,
    output:
        manifest="results/{volume}/{network}/slabs/{slab}.json",
    log:
        "logs/{volume}/{network}/check_slab/{slab}.log",
    conda:
        "../envs/voxmill.yaml"
    resources:
        mem_mb=stitch_memory_mb,
    params:
        predictions="results/{volume}/{network}/predictions",
        model=model_digest,
        code=source_digest("voxmill.tiles.check_slab"),
    message:
        "Checking the predictions of slab {wildcards.slab} of {wildcards.volume}"
    script:
        "../scripts/check_slab.py"


rule stitch_volume:
    input:
        plan="results/{volume}/plan.json",
        manifests=slab_manifests,
    output:
        probability="results/{volume}/{network}/probability.ome.tif",
    log:
        "logs/{volume}/{network}/stitch_volume.log",
    benchmark:
        "logs/{volume}/{network}/stitch_volume.tsv"
    conda:
        "../envs/voxmill.yaml"
    resources:
        mem_mb=stitch_memory_mb,
    params:
        compression=CONFIG.settings["stitching"]["compression"],
        code=source_digest("voxmill.tiles.stitch_volume"),
    message:
        "Stitching the predictions of {wildcards.network} on {wildcards.volume}"
    script:
        "../scripts/stitch_volume.py"
