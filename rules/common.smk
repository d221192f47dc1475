"""Helper functions for the rules, nothing else."""

import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.io import ancient

# Rules and scripts import the library from the folder of the Snakefile; nothing is installed.
sys.path.insert(0, str(Path(workflow.basedir)))

from voxmill import config as configuration
from voxmill.errors import VoxmillError
from voxmill.provenance import source_digest


def checked_config():
    """The configuration, or one message that names what is wrong with it."""
    try:
        return configuration.load(config)
    except VoxmillError as error:
        raise WorkflowError(str(error)) from None


CONFIG = checked_config()


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
    return {
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


def measured_halos(wildcards):
    """Halo measurements of all networks of a volume, where the halo is `auto`."""
    if CONFIG.halo_vox(wildcards.volume) is not None:
        return []
    networks = CONFIG.volumes[wildcards.volume].networks
    return [f"results/{wildcards.volume}/{network}/halo.json" for network in networks]


def halo_vox(wildcards):
    """The halo z, y, x, or None where it is measured."""
    return CONFIG.halo_vox(wildcards.volume)


def exact_reasons(wildcards):
    """Of each network how its theoretical field is computed, and why; None for other halos."""
    ways = CONFIG.ways.get(wildcards.volume, {})
    return {network: reason for network, (_, reason) in ways.items()} or None


def halo_settings(wildcards):
    """Settings of the measurement of the halo."""
    return {"tolerance": CONFIG.settings["tiles"]["halo_tolerance"]}


def seam_settings(wildcards):
    """Settings of the look at the seams."""
    return halo_settings(wildcards)


def network_weights(wildcards):
    """Weights file of a network."""
    return CONFIG.settings["networks"][wildcards.network]["weights"]


def network_card(wildcards):
    """Model card of a network, beside its weights."""
    return str(Path(network_weights(wildcards)).with_suffix(".json"))


def model_digest(wildcards):
    """Short digest of a network's weights, which predictions carry."""
    return CONFIG.weights_sha256[wildcards.network][:16]


def predictions_of_slab(wildcards):
    """Predictions of the tiles of one slab, or the manifests of the jobs that predict them."""
    folder = f"results/{wildcards.volume}/{wildcards.network}"
    names = CONFIG.tiles_of_slab(wildcards.volume, wildcards.slab)
    if CONFIG.tiles_per_job == 1:
        return [f"{folder}/predictions/{name}.tif" for name in names]
    batches = CONFIG.batches(wildcards.volume)
    return [
        f"{folder}/batches/{batch}.json"
        for batch, tiles in batches.items()
        if not set(names).isdisjoint(tiles)
    ]


def tiles_of_batch(wildcards):
    """The tiles that one job predicts."""
    names = CONFIG.batches(wildcards.volume)[wildcards.batch]
    return [f"results/{wildcards.volume}/tiles/{name}.tif" for name in names]


def batch_of_tile(wildcards):
    """Where several tiles share a job: a tile alone is made only when that job has ended."""
    if CONFIG.tiles_per_job == 1:
        return []
    batches = CONFIG.batches(wildcards.volume)
    (name,) = [name for name, tiles in batches.items() if wildcards.tile in tiles]
    return ancient(
        f"results/{wildcards.volume}/{wildcards.network}/batches/{name}.json"
    )


def slab_manifests(wildcards):
    """Manifests of all slabs of a volume's predictions."""
    folder = f"results/{wildcards.volume}/{wildcards.network}/slabs"
    return [f"{folder}/{slab}.json" for slab in CONFIG.slabs(wildcards.volume)]


def cell_settings(wildcards):
    """Settings of the cell finder, from the model's card where asked for."""
    return CONFIG.cell_settings(wildcards.network)


def baseline_settings(wildcards):
    """Settings of the difference of Gaussians."""
    section = CONFIG.settings["evaluation"]
    return {
        "cell_diameter_um": 2 * section["max_distance_um"],
        "min_distance_um": CONFIG.settings["cells"]["min_distance_um"],
        "max_distance_um": section["max_distance_um"],
    }


def evaluation_settings(wildcards):
    """Settings of the evaluation of one volume."""
    section = dict(CONFIG.settings["evaluation"])
    section.pop("baseline")
    return section | {"region": CONFIG.volumes[wildcards.volume].settings.get("region")}


def matches_if_any(wildcards):
    """Matched points of a network, where the volume has a truth."""
    if CONFIG.volumes[wildcards.volume].has_truth:
        return f"results/{wildcards.volume}/{wildcards.network}/matches.csv"
    return []


def methods_on(wildcards):
    """Names of all methods on one volume."""
    return methods_of(wildcards.volume)


def evaluations_of(wildcards):
    """Evaluations of all methods on one volume."""
    folder = f"results/{wildcards.volume}"
    return [
        f"{folder}/{method}/evaluation.json" for method in methods_of(wildcards.volume)
    ]


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
