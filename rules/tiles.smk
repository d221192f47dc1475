"""Cut tiles out of the volume."""


rule tiles:
    input:
        cut_tiles(),


rule cut_tile:
    input:
        volume=volume_file,
        plan="results/{volume}/plan.json",
    output:
        tile="results/{volume}/tiles/{tile}.tif",
    log:
        "logs/{volume}/cut_tile/{tile}.log",
    conda:
        "../envs/voxmill.yaml"
    resources:
        mem_mb=cut_memory_mb,
    params:
        source=volume_arguments,
        code=source_digest("voxmill.tiles.cut_tile"),
    message:
        "Cutting tile {wildcards.tile} out of {wildcards.volume}"
    script:
        "../scripts/cut_tile.py"
