"""Inputs and params of trainings."""


def training_volumes(wildcards):
    """Volumes that a network is trained on and validated with, by name."""
    return CONFIG.settings["training"][wildcards.trained]["volumes"]


def training_files(wildcards):
    """Volumes, truths and masks of a training; touching one retrains nothing by itself."""
    volumes = training_volumes(wildcards).values()
    truths = [volume["truth"]["path"] for volume in volumes]
    masks = [volume["mask"] for volume in volumes if "mask" in volume]
    return [ancient(path) for path in (*(v["path"] for v in volumes), *truths, *masks)]


def training_start(wildcards):
    """Weights that a training starts from, where it does."""
    return CONFIG.settings["training"][wildcards.trained].get("start", [])


def training_settings(wildcards):
    """Settings of a training."""
    return CONFIG.settings["training"][wildcards.trained].get("settings", {})
