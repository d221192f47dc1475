"""What the target rules ask for."""


def methods_of(volume):
    """What finds cells in a volume: its networks, and the baseline where asked for."""
    baseline = (
        CONFIG.settings["evaluation"]["baseline"] and CONFIG.volumes[volume].has_truth
    )
    return [*CONFIG.volumes[volume].networks, *(["baseline"] if baseline else [])]


def cut_tiles():
    """All tiles of all volumes."""
    return [
        f"results/{volume}/tiles/{tile}.tif"
        for volume in CONFIG.volumes
        for tile in CONFIG.tiles(volume)
    ]


def predictions():
    """What says that all tiles of all volumes are predicted."""
    return [
        file
        for volume, section in CONFIG.volumes.items()
        for network in section.networks
        for file in predictions_of(volume, f"results/{volume}/{network}")
    ]


def predictions_of(volume, folder):
    """Predictions of a volume's tiles; of tiles that share jobs the jobs' manifests.

    Snakemake does not know of the predictions behind a manifest: those that were lost since are
    named here, and made again one by one.
    """
    if CONFIG.tiles_per_job == 1:
        return [f"{folder}/predictions/{tile}.tif" for tile in CONFIG.tiles(volume)]
    predicted, made = names_in(f"{folder}/predictions"), names_in(f"{folder}/batches")
    batches = CONFIG.batches(volume)
    lost = [
        f"{folder}/predictions/{tile}.tif"
        for batch, tiles in batches.items()
        if f"{batch}.json" in made
        for tile in tiles
        if f"{tile}.tif" not in predicted
    ]
    return [*(f"{folder}/batches/{batch}.json" for batch in batches), *lost]


def names_in(folder):
    """Names of the files in a folder, none where it is missing."""
    return set(os.listdir(folder)) if os.path.isdir(folder) else set()


def per_network(name):
    """One file name under each volume's and network's folder."""
    return [
        f"results/{volume}/{network}/{name}"
        for volume, section in CONFIG.volumes.items()
        for network in section.networks
    ]


def per_method(name):
    """One file name for each method and volume that has a truth."""
    return [
        f"results/{volume}/{method}/{name}"
        for volume, section in CONFIG.volumes.items()
        if section.has_truth
        for method in methods_of(volume)
    ]


def durable_products():
    """Every file that a run keeps."""
    return [
        *cut_tiles(),
        *predictions(),
        *per_network("probability.ome.tif"),
        *per_network("seams.json"),
        *per_network("cells.csv"),
        *per_network("overview.png"),
        *per_method("evaluation.json"),
        *[
            f"results/{v}/comparison.html"
            for v, s in CONFIG.volumes.items()
            if s.has_truth
        ],
    ]
