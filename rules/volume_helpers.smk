"""Inputs and params of volumes and their truth."""


def volume_file(wildcards):
    """The file that windows of a volume are read from.

    A user's file is `ancient`: touching it reruns nothing; what counts is the fingerprint of its
    content in the rules' params.
    """
    volume = CONFIG.volumes[wildcards.volume]
    if volume.path is None:
        return f"results/{volume.name}/phantom.tif"
    if not volume.windows:
        return f"results/{volume.name}/unpacked.nii"
    return ancient(volume.path)


def original_volume(wildcards):
    """The user's own file of a volume."""
    return ancient(CONFIG.volumes[wildcards.volume].path or "results/no-such-volume")


def volume_arguments(wildcards):
    """Arguments of `voxmill.volumes.read_header` for the file that windows are read from."""
    volume = CONFIG.volumes[wildcards.volume]
    chosen = {
        key: volume.settings[key]
        for key in ("level", "time", "dataset")
        if key in volume.settings
    }
    return chosen | {
        "path": str(volume_file(wildcards)),
        "channel": volume.settings.get("channel"),
        "voxel_size_um": list(volume.voxel_size_um),
    }


def original_arguments(wildcards):
    """Arguments of `voxmill.volumes.read_header` for the user's own file."""
    return volume_arguments(wildcards) | {"path": CONFIG.volumes[wildcards.volume].path}


def volume_fingerprint(wildcards):
    """Fingerprint of a volume's content."""
    return CONFIG.volumes[wildcards.volume].fingerprint


def volume_shape(wildcards):
    """Shape of a volume, z, y, x."""
    return list(CONFIG.volumes[wildcards.volume].shape)


def volume_voxel_size(wildcards):
    """Voxel size, z, y, x, micrometres."""
    return list(CONFIG.volumes[wildcards.volume].voxel_size_um)


def phantom_settings(wildcards):
    """Settings of a phantom volume."""
    return CONFIG.volumes[wildcards.volume].settings["phantom"]


def truth_file(wildcards):
    """The user's truth of a volume, or the phantom's."""
    volume = CONFIG.volumes[wildcards.volume]
    if volume.path is None:
        return f"results/{volume.name}/phantom.csv"
    return volume.settings["truth"]["path"]


def truth_kind(wildcards):
    """What the truth is; None where the file tells."""
    return CONFIG.volumes[wildcards.volume].settings.get("truth", {}).get("kind")


def checked_truth(wildcards):
    """The checked truth of a volume that has one: a wrong frame ends a run before it predicts."""
    if CONFIG.volumes[wildcards.volume].has_truth:
        return ancient(f"results/{wildcards.volume}/truth.csv")
    return []
