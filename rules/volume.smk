"""Volumes: synthetic ones, unpacking, statistics, and the check of their ground truth."""


rule make_phantom:
    input:
        recorded=RECORDS,
    output:
        volume=update("results/{volume}/phantom.tif"),
        truth=update("results/{volume}/phantom.csv"),
        labels=update("results/{volume}/phantom_labels.tif"),
    log:
        "logs/{volume}/make_phantom.log",
    conda:
        "../envs/voxmill.yaml"
    resources:
        mem_mb=4000,
    params:
        settings=W.volumes.phantom,
        code=source_digest("voxmill.phantoms.make_phantom"),
    message:
        "Making the phantom {wildcards.volume}"
    script:
        "../scripts/make_phantom.py"


rule unpack_volume:
    input:
        volume=W.volumes.original,
        recorded=RECORDS,
    output:
        volume="results/{volume}/unpacked.nii",
    log:
        "logs/{volume}/unpack_volume.log",
    conda:
        "../envs/voxmill.yaml"
    resources:
        mem_mb=1000,
    params:
        source=W.volumes.original_arguments,
        fingerprint=W.volumes.original_fingerprint,
        code=source_digest("voxmill.volumes.unpack_volume"),
    message:
        "Unpacking {wildcards.volume}, whose file allows no windows"
    script:
        "../scripts/unpack_volume.py"


rule measure_volume:
    input:
        volume=W.volumes.file,
        tissue=W.volumes.tissue_file,
        recorded=RECORDS,
    output:
        statistics=update("results/{volume}/statistics.json"),
        blocks=update("results/{volume}/grey_blocks.npz"),
    log:
        "logs/{volume}/measure_volume.log",
    conda:
        "../envs/voxmill.yaml"
    resources:
        mem_mb=2000,
    params:
        source=W.volumes.arguments,
        fingerprint=W.volumes.fingerprint,
        tissue=W.volumes.tissue,
        tissue_fingerprint=W.volumes.tissue_fingerprint,
        counted_um=W.volumes.counted_um,
        code=source_digest("voxmill.volumes.measure_volume"),
    message:
        "Measuring the grey values of {wildcards.volume}"
    script:
        "../scripts/measure_volume.py"


rule check_ground_truth:
    input:
        truth=W.volumes.truth_file,
        recorded=RECORDS,
    output:
        truth="results/{volume}/truth.csv",
    log:
        "logs/{volume}/check_ground_truth.log",
    # First: a ground truth in another frame ends the run before tiles are predicted. No job of the
    # prediction waits for it: an edge there would make a new ground truth cut all tiles again.
    priority: 50
    conda:
        "../envs/voxmill.yaml"
    resources:
        mem_mb=2000,
    params:
        kind=W.volumes.truth_kind,
        reading=W.volumes.truth_reading,
        volume=W.volumes.truth_volume,
        fingerprint=W.volumes.original_fingerprint,
        truth_fingerprint=W.volumes.truth_fingerprint,
        shape=W.volumes.own_shape,
        voxel_size_um=W.volumes.own_voxel_size_um,
        code=source_digest("voxmill.evaluation.check_ground_truth"),
    message:
        "Checking the ground truth of {wildcards.volume}"
    script:
        "../scripts/check_ground_truth.py"
