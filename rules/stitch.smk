"""One volume again."""


rule stitch:
    input:
        W.targets.stitched(),


rule check_slab:
    input:
        plan="results/{volume}/plan.json",
        predictions=W.predictions.of_slab,
        recorded=RECORDS,
    output:
        manifest="results/{volume}/{network}/slabs/{slab}.json",
    log:
        "logs/{volume}/{network}/check_slab/{slab}.log",
    conda:
        "../envs/voxmill.yaml"
    threads: 4
    resources:
        mem_mb=1000,
    params:
        predictions="results/{volume}/{network}/predictions",
        image="results/{volume}/{network}/probability.ome.zarr",
        storage=W.predictions.storage,
        model=W.predictions.model_digest,
        part=W.volumes.part,
        code=source_digest("voxmill.tiles.check_slab"),
    message:
        "Checking the predictions of slab {wildcards.slab} of {wildcards.volume}"
    script:
        "../scripts/check_slab.py"


rule build_level:
    input:
        plan="results/{volume}/plan.json",
        manifests=W.pyramids.rows_below,
        recorded=RECORDS,
    output:
        manifest="results/{volume}/{network}/{levels}/{level}/{row}.json",
    log:
        "logs/{volume}/{network}/{levels}/{level}/build_level/{row}.log",
    conda:
        "../envs/voxmill.yaml"
    threads: 4
    resources:
        mem_mb=W.resources.level_memory_mb,
    params:
        image=W.pyramids.image,
        storage=W.pyramids.storage,
        how=W.pyramids.how,
        code=source_digest("voxmill.tiles.build_level"),
    message:
        "Making row {wildcards.row} of {wildcards.levels} {wildcards.level} of {wildcards.volume}"
    script:
        "../scripts/build_level.py"


rule stitch_volume:
    input:
        plan="results/{volume}/plan.json",
        manifests=W.pyramids.of_probability,
        recorded=RECORDS,
    output:
        # Without it no reader takes the folder for an image; jobs that write shards remove it.
        probability="results/{volume}/{network}/probability.ome.zarr/zarr.json",
    log:
        "logs/{volume}/{network}/stitch_volume.log",
    conda:
        "../envs/voxmill.yaml"
    resources:
        mem_mb=1000,
    params:
        image="results/{volume}/{network}/probability.ome.zarr",
        storage=W.predictions.storage,
        model=W.predictions.model_digest,
        pilot=W.predictions.is_pilot,
        code=source_digest("voxmill.tiles.stitch_volume"),
    message:
        "Stitching the predictions of {wildcards.network} on {wildcards.volume}"
    script:
        "../scripts/stitch_volume.py"


rule export_tiff:
    input:
        image="results/{volume}/{network}/{image}.ome.zarr/zarr.json",
        recorded=RECORDS,
    output:
        tiff=update("results/{volume}/{network}/{image}.ome.tif"),
    log:
        "logs/{volume}/{network}/{image}/export_tiff.log",
    conda:
        "../envs/voxmill.yaml"
    threads: 4
    resources:
        mem_mb=W.resources.stitch_memory_mb,
    params:
        how=W.pyramids.how_in_tiff,
        code=source_digest("voxmill.tiles.export_tiff"),
    message:
        "Writing {wildcards.image} of {wildcards.network} on {wildcards.volume} as OME-TIFF"
    script:
        "../scripts/export_tiff.py"
