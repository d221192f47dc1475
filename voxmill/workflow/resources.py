"""Memory, walltime and GPUs of jobs, from the sizes of tiles and networks.

A job that is killed for want of memory or time is tried again with a multiple of it: `attempt` is
1 at first.
"""

import math
import os
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from voxmill.config.networks import MSDNetSettings
from voxmill.denoising.scans import Denoising
from voxmill.geometry import Triple, three
from voxmill.networks import check_settings
from voxmill.networks.models import ModelCard
from voxmill.prediction.volume_predictor import HALOS_VOX
from voxmill.runtime.devices import visible_gpus
from voxmill.workflow.configuration import Config
from voxmill.workflow.cutting import ASSUMED_HALO_VOX
from voxmill.workflow.memory import (
    CPU_BASE_MB,
    GPU_BASE_MB,
    PINNED_MB,
    evaluation_bytes,
    megabytes,
    training_bytes,
)
from voxmill.workflow.wildcards import Settings, Wildcards

# Edge of the windows at seams, with what decides about the cells in them.
_SEAM_WINDOW_VOX = 48
# Operations a second of a slow CPU node.
_SLOW_RATE = 1e10
# What nothing tells of a program of `torch.export`: assumed is an MS-D network of 100 maps.
_EXPORTED_MAPS = 100


class Executor(Protocol):
    """What says where jobs run: Snakemake's `workflow`."""

    @property
    def non_local_exec(self) -> bool:
        """Whether jobs are handed to another machine."""
        ...

    @property
    def remote_exec(self) -> bool:
        """Whether this process is such a job."""
        ...


@dataclass(frozen=True)
class Resources:
    """What jobs ask for.

    Parameters
    ----------
    config : Config
    denoising : Denoising
        The checked sections `scans` and `denoising`.
    executor : Executor
    """

    config: Config
    denoising: Denoising
    executor: Executor

    def on_cluster(self) -> bool:
        """Whether jobs run on a cluster's nodes; also where this is asked again inside a job.

        Tasks of job arrays run Snakemake's local executor, and say so in the environment.
        """
        elsewhere = self.executor.non_local_exec or self.executor.remote_exec
        return bool(elsewhere) or "VOXMILL_ON_CLUSTER" in os.environ

    def prediction_gpus(self, wildcards: Wildcards) -> int:
        """GPUs of a prediction: none where the machine or the configuration has none."""
        return self._gpus(self.config.settings["prediction"]["device"])

    def training_gpus(self, wildcards: Wildcards) -> int:
        """GPUs of a training: none where the machine or its own settings have none."""
        return self._gpus(self._training(wildcards).get("device", "auto"))

    def fit_gpus(self, wildcards: Wildcards) -> int:
        """GPUs of a denoising, all on one node: none where the machine or the devices have none."""
        if self.denoising.devices == ("auto",):
            return self._gpus("auto")
        return self.denoising.gpus

    def cut_memory_mb(self, wildcards: Wildcards, attempt: int) -> int:
        """Tiles in the source's data type: two that are read, two that are written."""
        voxels = self._window_voxels(wildcards)
        held = 3 if self.config.cuts(wildcards.volume).size == 1 else 5
        return attempt * (500 + megabytes(held * voxels * self._itemsize(wildcards)))

    def stitch_memory_mb(self, wildcards: Wildcards, attempt: int) -> int:
        """Planes that are read together, at least one, and one of each level."""
        plane = math.prod(self.config.volumes[wildcards.volume].shape[1:])
        return attempt * (1000 + megabytes(4 * 4 * plane))

    def level_memory_mb(self, wildcards: Wildcards, attempt: int) -> int:
        """A shard in its type, its bytes, and what a layer of its chunks is made from."""
        core = math.prod(self.config.tile_shape_vox)
        return attempt * (500 + megabytes(4 * 6 * core))

    def prediction_memory_mb(self, wildcards: Wildcards, attempt: int) -> int:
        """A tile, its prediction, and on a CPU what the network takes for the whole tile."""
        return attempt * self._prediction_mb(wildcards, self._window_vox(wildcards))

    def batch_memory_mb(self, wildcards: Wildcards, attempt: int) -> int:
        """The same, where the next tile is read and the last one written meanwhile."""
        ahead = (4 + self._itemsize(wildcards)) * self._window_voxels(wildcards)
        behind = 4 * self._outputs(wildcards) * math.prod(self.config.tile_shape_vox)
        return self.prediction_memory_mb(wildcards, attempt) + attempt * megabytes(ahead + behind)

    def surroundings_memory_mb(self, wildcards: Wildcards, attempt: int) -> int:
        """A window with the largest surroundings that the halo and the seams are judged by."""
        radius = self._card(wildcards).receptive_radius_vox
        edge = _SEAM_WINDOW_VOX + 2 * min(radius, HALOS_VOX[-1])
        shape = self.config.volumes[wildcards.volume].shape
        z, y, x = (min(edge, n) for n in shape)
        return attempt * self._prediction_mb(wildcards, (z, y, x))

    def training_memory_mb(self, wildcards: Wildcards, attempt: int) -> int:
        """A few patches, and on a CPU what the network and its gradients take for them."""
        if self.training_gpus(wildcards):
            return attempt * (GPU_BASE_MB + 2000)
        start = self.config.settings["training"][wildcards.trained].get("start")
        needed = training_bytes(self._training(wildcards), start)
        return attempt * (CPU_BASE_MB + 500 + megabytes(needed))

    def fit_memory_mb(self, wildcards: Wildcards, attempt: int) -> int:
        """A few float volumes beside PyTorch, more where the CPU itself fits."""
        more = self.denoising.settings.get("fits_at_once", 1) - 1
        return attempt * (8000 + 3000 * more if self.fit_gpus(wildcards) else 16000)

    def prediction_minutes(self, wildcards: Wildcards, attempt: int) -> int:
        """Half an hour, and what a slow CPU node takes for a tile.

        Nothing tells how much a program of `torch.export` computes: it is counted as an MS-D
        network of 100 layers. A longer one needs `runtime` in the profile.
        """
        return attempt * (30 + math.ceil(self._slow_minutes(wildcards)))

    def batch_minutes(self, wildcards: Wildcards, attempt: int) -> int:
        """The same for all tiles of a job."""
        slow = self.config.tiles_per_job(wildcards.volume) * self._slow_minutes(wildcards)
        return attempt * (30 + math.ceil(slow))

    def _gpus(self, device: str) -> int:
        if device == "auto" and not self.on_cluster():
            return int(bool(visible_gpus()))
        return int(device != "cpu")

    def _prediction_mb(self, wildcards: Wildcards, window_vox: Triple) -> int:
        settings, card = self.config.settings["prediction"], self._card(wildcards)
        voxels, outputs = math.prod(window_vox), self._outputs(wildcards)
        # The window as read, normalised and copied once; the result of the window and of the core.
        held = (self._itemsize(wildcards) + 4 + 4 + 4 * outputs) * voxels
        core = min(voxels, math.prod(self.config.tile_shape_vox))
        held += 4 * outputs * core
        # The core in the type that is stored, and its bytes.
        held += 2 * np.dtype(self.config.settings["stitching"]["dtype"]).itemsize * core
        if settings["flips"]:
            held += 4 * (1 + outputs) * voxels  # a mirrored window and the sum of the results
        if self.prediction_gpus(wildcards):
            return GPU_BASE_MB + PINNED_MB + megabytes(held)
        held += evaluation_bytes(card.network, card.settings, settings, window_vox)
        return CPU_BASE_MB + megabytes(held)

    def _slow_minutes(self, wildcards: Wildcards) -> float:
        card = self._card(wildcards)
        settings = check_settings(card.network, card.settings)
        maps = _EXPORTED_MAPS
        if isinstance(settings, MSDNetSettings):
            maps = settings.depth * settings.width
        # 27 weights, a multiplication and an addition each, from every earlier map.
        operations = 54 * maps**2 / 2 * self._window_voxels(wildcards)
        evaluations = 8 if self.config.settings["prediction"]["flips"] else 1
        return evaluations * operations / _SLOW_RATE / 60

    def _window_vox(self, wildcards: Wildcards) -> Triple:
        halo = self.config.halo_vox(wildcards.volume) or ASSUMED_HALO_VOX
        shape = self.config.volumes[wildcards.volume].shape
        sizes = zip(shape, self.config.tile_shape_vox, halo, strict=True)
        return three(min(n, t + 2 * h) for n, t, h in sizes)

    def _window_voxels(self, wildcards: Wildcards) -> int:
        return math.prod(self._window_vox(wildcards))

    def _itemsize(self, wildcards: Wildcards) -> int:
        return self.config.volumes[wildcards.volume].itemsize

    def _card(self, wildcards: Wildcards) -> ModelCard:
        return self.config.cards[wildcards.network]

    def _outputs(self, wildcards: Wildcards) -> int:
        card = self._card(wildcards)
        outputs: int = check_settings(card.network, card.settings).outputs
        return outputs

    def _training(self, wildcards: Wildcards) -> Settings:
        section = self.config.settings["training"][wildcards.trained]
        settings: Settings = section.get("settings", {})
        return settings
