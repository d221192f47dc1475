"""A box of voxels through a network, on the device and in the memory that the job has."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from voxmill.config.prediction import PredictionSettings
from voxmill.prediction.memory import predict_in_blocks
from voxmill.runtime import devices
from voxmill.runtime.errors import VoxmillError
from voxmill.tiles.grid import Triple


def predict(
    network,
    voxels: np.ndarray,
    settings: PredictionSettings,
    threads: int,
    core: tuple[Triple, Triple] | None = None,
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
    core : pair of (3,) int, optional
        Start and stop of what is wanted; by default the whole box.
    halo : (3,) int, optional
        Context that is kept where memory is short and the box is cut in blocks; by default the
        theoretical one.
    origin : (3,) int
        Where the box starts in the whole volume.

    Returns
    -------
    (outputs, z, y, x) float32 array
        Probabilities of the core.
    """
    whole = ((0, 0, 0), voxels.shape)
    return predict_in_blocks(
        network, voxels[None], core or whole, halo or (network.settings.receptive_radius_vox,) * 3,
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
    settings: PredictionSettings, gpus: int, output_path, record_path=None
) -> Iterator[PredictionSettings]:
    """Hold a job's device while the block runs; yields the settings with that device.

    Arguments and errors as `voxmill.runtime.devices.claim`; the output names the task.
    """
    with devices.claim(gpus, settings.device, record_path, str(output_path)) as held:
        # The device's number is the claim's business: the job sees no other.
        yield replace(settings, device=held.devices[0].partition(":")[0])
