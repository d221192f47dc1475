"""Cut tiles out of the volume."""


rule tiles:
    input:
        W.targets.tiles(),


rule cut_tile:
    input:
        volume=W.volumes.file,
        plan="results/{volume}/plan.json",
        recorded=RECORDS,
    output:
        tile=update("results/{volume}/tiles/{tile}.tif"),
    log:
        "logs/{volume}/cut_tile/{tile}.log",
    conda:
        "../envs/voxmill.yaml"
    resources:
        mem_mb=W.resources.cut_memory_mb,
    params:
        source=W.volumes.arguments,
        code=source_digest("voxmill.tiles.cut_tile"),
    message:
        "Cutting tile {wildcards.tile} out of {wildcards.volume}"
    script:
        "../scripts/cut_tile.py"
