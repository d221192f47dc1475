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


def per_tile_predictions():
    """All predictions of all tiles."""
    return [
        f"results/{volume}/{network}/predictions/{tile}.tif"
        for volume, section in CONFIG.volumes.items()
        for network in section.networks
        for tile in CONFIG.tiles(volume)
    ]


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
        *per_tile_predictions(),
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
