"""Volumes: synthetic ones, unpacking, statistics, and the check of their truth."""


rule make_phantom:
    message:
        "Making the phantom {wildcards.volume}"
    output:
        volume="results/{volume}/phantom.tif",
        truth="results/{volume}/phantom.csv",
    params:
        settings=phantom_settings,
        code=source_digest("voxmill.phantoms"),
    log:
        "logs/{volume}/make_phantom.log",
    resources:
        mem_mb=4000,
    conda:
        "../envs/voxmill.yaml"
    script:
        "../scripts/make_phantom.py"


rule unpack_volume:
    message:
        "Unpacking {wildcards.volume}, whose file allows no windows"
    input:
        volume=original_volume,
    output:
        volume="results/{volume}/unpacked.nii",
    params:
        source=original_arguments,
        fingerprint=volume_fingerprint,
        code=source_digest("voxmill.unpacking"),
    log:
        "logs/{volume}/unpack_volume.log",
    resources:
        mem_mb=1000,
    conda:
        "../envs/voxmill.yaml"
    script:
        "../scripts/unpack_volume.py"


rule measure_volume:
    message:
        "Measuring the grey values of {wildcards.volume}"
    input:
        volume=volume_file,
    output:
        statistics="results/{volume}/statistics.json",
    params:
        source=volume_arguments,
        fingerprint=volume_fingerprint,
        code=source_digest("voxmill.statistics"),
    log:
        "logs/{volume}/measure_volume.log",
    resources:
        mem_mb=2000,
    conda:
        "../envs/voxmill.yaml"
    script:
        "../scripts/measure_volume.py"


rule check_truth:
    message:
        "Checking the truth of {wildcards.volume}"
    input:
        truth=truth_file,
    output:
        truth="results/{volume}/truth.csv",
    params:
        kind=truth_kind,
        shape=volume_shape,
        voxel_size_um=volume_voxel_size,
        code=source_digest("voxmill.truth"),
    log:
        "logs/{volume}/check_truth.log",
    # A truth in another frame shall end the run before any tile is predicted.
    priority: 50
    resources:
        mem_mb=2000,
    conda:
        "../envs/voxmill.yaml"
    script:
        "../scripts/check_truth.py"
