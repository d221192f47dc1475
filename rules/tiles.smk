"""Cut tiles out of the volume."""


rule tiles:
    input:
        W.targets.tiles(),


rule cut_tiles:
    input:
        volume=W.volumes.file,
        plan="results/{volume}/plan.json",
        recorded=RECORDS,
        recorded=RECORDS,
    output:
        tiles=W.cutting.output,
    log:
        "logs/{volume}/cut_tiles/{batch}.log",
    conda:
        "../envs/voxmill.yaml"
    resources:
        mem_mb=W.resources.cut_memory_mb,
    params:
        source=W.volumes.arguments,
        tiles=W.cutting.tiles,
        folder=W.cutting.folder,
        code=source_digest("voxmill.tiles.cut_tiles"),
    message:
        "Cutting the tiles from {wildcards.batch} on out of {wildcards.volume}"
    script:
        "../scripts/cut_tiles.py"
