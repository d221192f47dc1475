"""Cut tiles out of the volume."""


rule tiles:
    input:
        cut_tiles(),


rule cut_tile:
    message:
        "Cutting tile {wildcards.tile} out of {wildcards.volume}"
    input:
        volume=volume_file,
        plan="results/{volume}/plan.json",
    output:
        tile="results/{volume}/tiles/{tile}.tif",
    params:
        source=volume_arguments,
        code=source_digest("voxmill.cutting"),
    log:
        "logs/{volume}/cut_tile/{tile}.log",
    resources:
        mem_mb=cut_memory_mb,
    conda:
        "../envs/voxmill.yaml"
    script:
        "../scripts/cut_tile.py"
