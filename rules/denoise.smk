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
    message:
        "Making the synthetic scan {wildcards.scan}"
    output:
        scan="results/{scan}/scan.nii.gz",
        reference="results/{scan}/reference.nii.gz",
        mask="results/{scan}/mask.nii.gz",
    params:
        settings=scan_phantom,
        code=source_digest("voxmill.dip.phantom"),
    log:
        "logs/{scan}/make_scan.log",
    resources:
        mem_mb=2000,
    conda:
        "../envs/voxmill.yaml"
    script:
        "../scripts/make_scan.py"


rule denoise_scan:
    message:
        "Denoising {wildcards.scan}"
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
    params:
        settings=DENOISING.settings,
        devices=list(DENOISING.devices),
        volume=scan_volume,
        # No output: Snakemake removes the outputs of a killed job, and this one it shall find.
        checkpoint="results/{scan}/.denoising.pt",
        code=source_digest("voxmill.dip.denoise"),
    log:
        "logs/{scan}/denoise_scan.log",
    benchmark:
        "benchmarks/{scan}/denoise_scan.tsv"
    threads: 8
    resources:
        gpu=gpus_per_fit,
        nodes=1,
        mem_mb=fit_memory_mb,
    conda:
        "../envs/voxmill.yaml"
    script:
        "../scripts/denoise_scan.py"


rule write_derivatives:
    message:
        "Writing the BIDS derivatives of {wildcards.dataset}"
    input:
        denoised=dataset_volumes,
        records=dataset_records,
    output:
        description="results/{dataset}/derivatives/voxmill/dataset_description.json",
    params:
        source=dataset_folder,
        code=source_digest("voxmill.dip.bids"),
    log:
        "logs/{dataset}/write_derivatives.log",
    resources:
        mem_mb=1000,
    conda:
        "../envs/voxmill.yaml"
    script:
        "../scripts/write_derivatives.py"
