"""Memory and GPUs of the rules, from the sizes of tiles and networks."""

import math
import os

from voxmill.runtime.devices import visible_gpus


def on_cluster():
    """Whether jobs run on a cluster's nodes; also where this is parsed again inside a job.

    Tasks of job arrays run Snakemake's local executor, and say so in the environment.
    """
    executor = workflow.non_local_exec or workflow.remote_exec
    return executor or "VOXMILL_ON_CLUSTER" in os.environ


def gpus_per_prediction(wildcards):
    """GPUs that a prediction job asks for: none where the machine or the config has none."""
    device = CONFIG.settings["prediction"]["device"]
    if device == "auto" and not on_cluster():
        return int(bool(visible_gpus()))
    return int(device != "cpu")


def cut_memory_mb(wildcards, attempt):
    """Memory of a job that holds one tile in the source's dtype, raised on each retry."""
    return attempt * (
        500 + 3 * _window_voxels(wildcards) * _itemsize(wildcards) // 2**20
    )


def stitch_memory_mb(wildcards, attempt):
    """Memory of a job that holds a few planes and one core."""
    core = math.prod(CONFIG.tile_shape_vox)
    plane = math.prod(CONFIG.volumes[wildcards.volume].shape[1:])
    return attempt * (500 + (4 * 3 * core + 4 * 4 * plane) // 2**20)


def predict_memory_mb(wildcards, attempt):
    """Memory of a job that runs the network over one tile, raised on each retry."""
    settings = CONFIG.cards[wildcards.network].settings
    maps = settings.get("depth", 100) * settings.get("width", 1) + 8
    return attempt * (1500 + 4 * maps * _window_voxels(wildcards) // 2**20)


def batch_memory_mb(wildcards, attempt):
    """The same where the next tile is read and the last one written meanwhile."""
    ahead_mb = (8 + _itemsize(wildcards)) * _window_voxels(wildcards) // 2**20
    return predict_memory_mb(wildcards, attempt) + attempt * ahead_mb


def predict_minutes(wildcards, attempt):
    """Walltime of a prediction: half an hour, and what a slow CPU node takes; more on a retry."""
    return attempt * (30 + _slow_minutes(wildcards))


def batch_minutes(wildcards, attempt):
    """The same for all tiles of a job."""
    return attempt * (30 + CONFIG.tiles_per_job * _slow_minutes(wildcards))


def _slow_minutes(wildcards):
    settings = CONFIG.cards[wildcards.network].settings
    depth, width = settings.get("depth", 100), settings.get("width", 1)
    # 27 weights, a multiplication and an addition each, from every earlier map; 10 GFLOP/s.
    operations = 54 * (depth * width) ** 2 / 2 * _window_voxels(wildcards)
    evaluations = 8 if CONFIG.settings["prediction"]["flips"] else 1
    return round(evaluations * operations / 1e10 / 60)


def _window_voxels(wildcards):
    # A measured halo is not known here; it is seldom larger.
    halo = CONFIG.halo_vox(wildcards.volume) or (32, 32, 32)
    shape = CONFIG.volumes[wildcards.volume].shape
    sizes = zip(shape, CONFIG.tile_shape_vox, halo)
    return math.prod(min(n, t + 2 * h) for n, t, h in sizes)


def _itemsize(wildcards):
    return CONFIG.volumes[wildcards.volume].itemsize
