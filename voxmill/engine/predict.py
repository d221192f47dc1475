"""Predict a tile: read, normalise, run the network, keep the core, write."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from voxmill import devices, models
from voxmill.engine.backends import forward
from voxmill.engine.memory import predict_in_blocks
from voxmill.errors import VoxmillError
from voxmill.files import read_json
from voxmill.jobs import job, log_rate, logger
from voxmill.planning import REMAKE, find_tile, read_plan
from voxmill.statistics import normalise
from voxmill.tiling import Tile
from voxmill.volumes import read_tile, write_tile

PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class PredictionSettings:
    """How a network is run; what it is stands in its card.

    Parameters
    ----------
    backend : str
        "auto" or a key of `voxmill.engine.backends.BACKENDS`.
    device : str
        "auto" (a GPU where the job sees one), "cpu" or "cuda".
    precision : str
        "float32", or where the backend has it "bfloat16" or "float16".
    """

    backend: str = "auto"
    device: str = "auto"
    precision: str = "float32"

    def __post_init__(self):
        for key, allowed in (("device", ("auto", "cpu", "cuda")), ("precision", PRECISIONS)):
            if getattr(self, key) not in allowed:
                raise VoxmillError(
                    f"prediction.{key}: expected one of {list(allowed)}, "
                    f"found {getattr(self, key)!r}"
                )


def predict(network, voxels: np.ndarray, settings: PredictionSettings, threads: int) -> np.ndarray:
    """Probabilities of all output maps for a box of normalised voxels.

    Parameters
    ----------
    network : torch module
        As `voxmill.models.load` returns it.
    voxels : (z, y, x) float32 array
        Normalised intensities. Outside of the box the network sees zeros.
    settings : PredictionSettings
    threads : int
        CPU threads to use.

    Returns
    -------
    (outputs, z, y, x) float32 array
        Probabilities.
    """
    return forward(
        network, voxels[None], settings.backend, resolve_device(settings.device),
        settings.precision, threads,
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

    Arguments and errors as `voxmill.devices.claim`; the output names the task.
    """
    with devices.claim(gpus, settings.device, record_path, str(output_path)) as held:
        # The device's number is the claim's business: the job sees no other.
        yield replace(settings, device=held.devices[0].partition(":")[0])


@job
def predict_tile(
    *,
    tile_path: str,
    plan_path: str,
    statistics_path: str,
    weights_path: str,
    output_path: str,
    tile: str,
    settings: dict,
    threads: int,
    gpus: int = 0,
    record_path: str | None = None,
) -> None:
    """Write the prediction of one tile: its core only, the first output map, float32.

    Parameters
    ----------
    tile_path, plan_path, statistics_path, weights_path : path
        Inputs; the model's card lies beside the weights.
    output_path : path
        A TIFF file that carries the tile's key, the model's digest and a checksum.
    tile : str
        The tile's name.
    settings : dict
        See `PredictionSettings`.
    threads : int
    gpus : int
        GPUs that the job asked for; see `voxmill.devices.claim`.
    record_path : path, optional
        Where the job records when and where it ran, and on which GPU.

    Raises
    ------
    VoxmillError
        If an input is missing, broken or of another plan, or a GPU that was asked for is not
        there.
    """
    settings = PredictionSettings(**settings)
    with on_claimed_device(settings, gpus, output_path, record_path) as settings:
        _predict_tile(
            tile_path, plan_path, statistics_path, weights_path, output_path, tile, settings,
            threads,
        )  # fmt: skip


def _predict_tile(
    tile_path: str,
    plan_path: str,
    statistics_path: str,
    weights_path: str,
    output_path: str,
    tile: str,
    settings: PredictionSettings,
    threads: int,
) -> None:
    plan = read_plan(plan_path)
    box, key = find_tile(plan, tile, plan_path)
    voxels = read_tile(
        tile_path,
        box.window_shape,
        plan["source"]["dtype"],
        {"tile": key},
        REMAKE,
    )
    card, network = models.load(weights_path)
    normalised = normalise(voxels, read_json(statistics_path, "statistics"), card.normalisation)
    start = time.perf_counter()
    core = predict_in_blocks(
        network, normalised[None], _core_in_window(box), tuple(plan["halo_vox"]), settings.backend,
        resolve_device(settings.device), settings.precision, threads,
    )[0]  # fmt: skip
    seconds = time.perf_counter() - start
    logger.info("network %s, settings %s, %d threads", card.name, settings, threads)
    log_rate("predicted", voxels.size, seconds)
    if not np.isfinite(core).all():
        raise VoxmillError(
            f"{weights_path}: the prediction of tile {tile} holds NaN or infinite values: "
            f"try precision float32 (now {settings.precision}), or train the network again."
        )
    write_tile(
        output_path, core, plan["source"]["voxel_size_um"], box.core_start,
        {"tile": key, "model": card.weights_sha256[:16]},
    )  # fmt: skip


def _core_in_window(box: Tile) -> tuple:
    places = [(part.start, part.stop) for part in box.core_in_window]
    return tuple(zip(*places, strict=True))
