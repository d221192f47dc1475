"""Helper functions for the denoising rules, nothing else."""

import re

from voxmill.denoising import scans as denoising_config


def checked_denoising():
    """The sections `scans` and `denoising`, or one message that names what is wrong with them."""
    try:
        return denoising_config.load(CONFIG.settings)
    except VoxmillError as error:
        raise WorkflowError(str(error)) from None


DENOISING = checked_denoising()


def name_pattern(names):
    """A pattern of exactly these names; of nothing where there are none."""
    return "|".join(re.escape(name) for name in names) or "(?!)"


def users_file(scan, path):
    """A file of a scan as an input: touching a user's own reruns nothing, as for volumes."""
    return path if scan.phantom is not None else ancient(path)


def scan_file(wildcards):
    """The NIfTI file of a scan."""
    scan = DENOISING.scans[wildcards.scan]
    return users_file(scan, scan.path)


def scan_reference(wildcards):
    """The noise-free image of a scan, where there is one."""
    scan = DENOISING.scans[wildcards.scan]
    return users_file(scan, scan.reference) if scan.reference else []


def scan_mask(wildcards):
    """The brain mask of a scan, where there is one."""
    scan = DENOISING.scans[wildcards.scan]
    return users_file(scan, scan.mask) if scan.mask else []


def scan_fingerprint(wildcards):
    """Fingerprint of the content of a scan's files."""
    return DENOISING.scans[wildcards.scan].fingerprint


def scan_volume(wildcards):
    """Which volume of a 4D file to denoise."""
    return DENOISING.scans[wildcards.scan].volume


def scan_phantom(wildcards):
    """Settings of a synthetic scan."""
    return DENOISING.scans[wildcards.scan].phantom


def gpus_per_fit(wildcards):
    """GPUs that a fit asks for, all on one node: none where the machine or the config has none."""
    if DENOISING.devices == ("auto",) and not on_cluster():
        return int(bool(visible_gpus()))
    return DENOISING.gpus


def fit_memory_mb(wildcards, attempt):
    """Memory of the host: a few float volumes beside PyTorch, more where the CPU itself fits."""
    return attempt * (8000 if gpus_per_fit(wildcards) else 16000)


def dataset_folder(wildcards):
    """The BIDS folder of a data set."""
    return DENOISING.datasets[wildcards.dataset]


def dataset_volumes(wildcards):
    """Denoised scans of a data set."""
    found = DENOISING.of_dataset(wildcards.dataset)
    return [f"results/{scan.name}/denoised.nii.gz" for scan in found]


def dataset_records(wildcards):
    """Records of the scans of a data set."""
    found = DENOISING.of_dataset(wildcards.dataset)
    return [f"results/{scan.name}/denoising.json" for scan in found]


def denoised_products():
    """Every file that denoising keeps."""
    return [
        *[
            f"results/{scan}/{name}"
            for scan in DENOISING.scans
            for name in (
                "denoised.nii.gz",
                "denoising.json",
                "denoising.csv",
                "denoised.png",
                "denoising.png",
            )
        ],
        *[
            f"results/{dataset}/derivatives/voxmill/dataset_description.json"
            for dataset in DENOISING.datasets
        ],
    ]
