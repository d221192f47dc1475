"""A box of voxels through a network, on the device and in the memory that the job has."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from voxmill.config.prediction import PredictionSettings
from voxmill.geometry import Box, Triple
from voxmill.prediction.memory import predict_in_blocks
from voxmill.runtime import devices
from voxmill.runtime.errors import VoxmillError


def predict(
    network: Any,
    voxels: np.ndarray,
    settings: PredictionSettings,
    threads: int,
    core: Box | None = None,
    halo: Triple | None = None,
    origin: Triple = (0, 0, 0),
) -> np.ndarray:
    """Probabilities of all output maps for a box of normalised voxels, or for its core.

    Parameters
    ----------
    network : torch module
        As `voxmill.networks.models.load` returns it.
    voxels : (z, y, x) float32 array
        Normalised intensities. Outside of the box the network sees zeros.
    settings : PredictionSettings
    threads : int
        CPU threads to use.
    core : Box, optional
        The part that is wanted, in the coordinates of `voxels`; by default all of them.
    halo : (3,) int, optional
        Halo of each block where memory is short and the box is cut into blocks; by default the
        theoretical one.
    origin : (3,) int
        The first voxel of the box in the whole volume.

    Returns
    -------
    (outputs, z, y, x) float32 array
        Probabilities of the core.

    Raises
    ------
    VoxmillError
        If the device is absent, no block fits the memory, or the backend can't run the network.
    """
    core = Box.from_shape(voxels.shape) if core is None else core
    return predict_in_blocks(
        network, voxels[None], core, halo or (network.settings.receptive_radius_vox,) * 3,
        settings.backend, resolve_device(settings.device), settings.precision, threads,
        flip_axes=settings.flip_axes, origin=origin,
    )  # fmt: skip


def resolve_device(device: str) -> str:
    """The device to compute on: "cpu" or "cuda".

    Raises
    ------
    VoxmillError
        If CUDA is asked for and absent.
    """
    if device == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise VoxmillError(
            "prediction.device: expected a CUDA device, found none that this job can see. "
            "Run on a GPU node, or set prediction.device to auto or cpu."
        )
    return "cpu"


@contextlib.contextmanager
def on_claimed_device(
    settings: PredictionSettings,
    gpus: int,
    output_path: str | Path,
    record_path: str | Path | None = None,
) -> Iterator[PredictionSettings]:
    """Hold a job's device while the block runs; yields the settings with that device.

    Arguments and errors as of `voxmill.runtime.devices.claim`; the output names the task.
    """
    with devices.claim(gpus, settings.device, record_path, str(output_path)) as held:
        # Without its number: the job sees no other device than the one it holds.
        yield replace(settings, device="cuda" if held.devices[0].startswith("cuda") else "cpu")
