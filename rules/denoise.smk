"""Denoise MRI scans with a Deep Image Prior."""


rule denoise:
    input:
        W.targets.denoised(),


rule make_scan:
    input:
        recorded=RECORDS,
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
        settings=W.scans.phantom,
        code=source_digest("voxmill.phantoms.make_scan"),
    message:
        "Making the synthetic scan {wildcards.scan}"
    script:
        "../scripts/make_scan.py"


rule denoise_scan:
    input:
        scan=W.scans.file,
        reference=W.scans.reference,
        mask=W.scans.mask,
        recorded=RECORDS,
    output:
        denoised=update("results/{scan}/denoised.nii.gz"),
        record=update("results/{scan}/denoising.json"),
        history=update("results/{scan}/denoising.csv"),
        planes=report(
            update("results/{scan}/denoised.png"),
            category="{scan}",
            labels={"figure": "denoised"},
            caption="../docs/captions/denoised.rst",
        ),
        curves=report(
            update("results/{scan}/denoising.png"),
            category="{scan}",
            labels={"figure": "fit"},
            caption="../docs/captions/denoising.rst",
        ),
    log:
        "logs/{scan}/denoise_scan.log",
    conda:
        "../envs/voxmill.yaml"
    threads: 8
    resources:
        gpu=W.resources.fit_gpus,
        nodes=1,
        mem_mb=W.resources.fit_memory_mb,
    params:
        settings=W.scans.settings,
        devices=W.scans.devices,
        volume=W.scans.volume,
        fingerprints=W.scans.fingerprints,
        # Not an output: Snakemake removes those of a killed job, and the next one resumes from it.
        checkpoint="results/{scan}/.denoising.pt",
        code=source_digest("voxmill.denoising.denoise_scan"),
    message:
        "Denoising {wildcards.scan}"
    script:
        "../scripts/denoise_scan.py"


rule write_derivatives:
    input:
        denoised=W.scans.dataset_volumes,
        records=W.scans.dataset_records,
        recorded=RECORDS,
    output:
        description="results/{dataset}/derivatives/voxmill/dataset_description.json",
    log:
        "logs/{dataset}/write_derivatives.log",
    conda:
        "../envs/voxmill.yaml"
    resources:
        mem_mb=1000,
    params:
        source=W.scans.dataset_folder,
        suffixes=W.scans.dataset_suffixes,
        counts=W.scans.dataset_counts,
        code=source_digest("voxmill.denoising.write_derivatives"),
    message:
        "Writing the BIDS derivatives of {wildcards.dataset}"
    script:
        "../scripts/write_derivatives.py"
