"""Helper functions of the rules that evaluate networks in stages of layers."""


def maps_before(volume, network, tiles, index):
    """Maps of all stages before one, of tiles and of those around that the stage looks at."""
    stages = CONFIG.stages(volume, network)
    if not stages:
        return []
    halo = stages[index].halo_vox
    near = {name for tile in tiles for name in CONFIG.tiles_near(volume, tile, halo)}
    folder = f"results/{volume}/{network}/maps"
    return [
        f"{folder}/{stage.name}/{tile}.maps"
        for stage in stages[:index]
        for tile in sorted(near)
    ]


def stage_index(wildcards):
    """Number of a stage of a network."""
    stages = CONFIG.stages(wildcards.volume, wildcards.network)
    return [stage.name for stage in stages].index(wildcards.stage)


def maps_before_stage(wildcards):
    """Maps that one stage of a tile needs."""
    index = stage_index(wildcards)
    return maps_before(wildcards.volume, wildcards.network, [wildcards.tile], index)


def maps_before_prediction(wildcards):
    """Maps that the last stage of a tile needs; none where the network is evaluated whole."""
    return maps_before(wildcards.volume, wildcards.network, [wildcards.tile], -1)


def maps_before_batch(wildcards):
    """The same for all tiles of a job."""
    tiles = CONFIG.batches(wildcards.volume)[wildcards.batch]
    return maps_before(wildcards.volume, wildcards.network, tiles, -1)


def stage_files(wildcards):
    """A stage, and where the maps of those before it are."""
    return layer_arguments(wildcards, stage_index(wildcards))


def last_stage_files(wildcards):
    """The same of the last stage; None where the network is evaluated whole."""
    stages = CONFIG.stages(wildcards.volume, wildcards.network)
    return layer_arguments(wildcards, len(stages) - 1) if stages else None


def layer_arguments(wildcards, index):
    """Arguments of `voxmill.engine.layers.StageFiles`."""
    stages = CONFIG.stages(wildcards.volume, wildcards.network)
    return {
        "cuts": [0, *(stage.stop for stage in stages)],
        "index": index,
        "folder": f"results/{wildcards.volume}/{wildcards.network}/maps",
    }
