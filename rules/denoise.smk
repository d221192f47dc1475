"""Denoise MRI scans with a Deep Image Prior."""


wildcard_constraints:
    scan=name_pattern(DENOISING.scans),
    dataset=name_pattern(DENOISING.datasets),


localrules:
    denoise,


rule denoise:
    input:
        denoised_products(),


rule make_scan:
    output:
        scan="results/{scan}/scan.nii.gz",
        reference="results/{scan}/reference.nii.gz",
        mask="results/{scan}/mask.nii.gz",
    log:
        "logs/{scan}/make_scan.log",
    conda:
        "../envs/voxmill.yaml"
    resources:
        mem_mb=2000,
    params:
        settings=scan_phantom,
        code=source_digest("voxmill.phantoms.make_scan"),
    message:
        "Making the synthetic scan {wildcards.scan}"
    script:
        "../scripts/make_scan.py"


rule denoise_scan:
    input:
        scan=scan_file,
        reference=scan_reference,
        mask=scan_mask,
    output:
        denoised="results/{scan}/denoised.nii.gz",
        record="results/{scan}/denoising.json",
        history="results/{scan}/denoising.csv",
        planes=report(
            "results/{scan}/denoised.png",
            category="{scan}",
            labels={"figure": "denoised"},
            caption="../docs/captions/denoised.rst",
        ),
        curves=report(
            "results/{scan}/denoising.png",
            category="{scan}",
            labels={"figure": "fit"},
            caption="../docs/captions/denoising.rst",
        ),
    log:
        "logs/{scan}/denoise_scan.log",
    benchmark:
        "logs/{scan}/denoise_scan.tsv"
    conda:
        "../envs/voxmill.yaml"
    threads: 8
    resources:
        gpu=gpus_per_fit,
        nodes=1,
        mem_mb=fit_memory_mb,
    params:
        settings=DENOISING.settings,
        devices=list(DENOISING.devices),
        volume=scan_volume,
        fingerprint=scan_fingerprint,
        # No output: Snakemake removes the outputs of a killed job, and this one it shall find.
        checkpoint="results/{scan}/.denoising.pt",
        code=source_digest("voxmill.denoising.denoise_scan"),
    message:
        "Denoising {wildcards.scan}"
    script:
        "../scripts/denoise_scan.py"


rule write_derivatives:
    input:
        denoised=dataset_volumes,
        records=dataset_records,
    output:
        description="results/{dataset}/derivatives/voxmill/dataset_description.json",
    log:
        "logs/{dataset}/write_derivatives.log",
    conda:
        "../envs/voxmill.yaml"
    resources:
        mem_mb=1000,
    params:
        source=dataset_folder,
        code=source_digest("voxmill.denoising.write_derivatives"),
    message:
        "Writing the BIDS derivatives of {wildcards.dataset}"
    script:
        "../scripts/write_derivatives.py"
