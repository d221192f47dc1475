"""Inputs and params of halo, seams, networks and predictions."""


def measured_halos(wildcards):
    """Halo measurements of all networks of a volume, where the halo is `auto`."""
    if CONFIG.halo_vox(wildcards.volume) is not None:
        return []
    networks = CONFIG.volumes[wildcards.volume].networks
    return [f"results/{wildcards.volume}/{network}/halo.json" for network in networks]


def halo_vox(wildcards):
    """The halo z, y, x, or None where it is measured."""
    return CONFIG.halo_vox(wildcards.volume)


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
