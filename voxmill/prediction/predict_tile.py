"""Predict one tile in a job of its own."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from voxmill.config.prediction import PredictionSettings
from voxmill.prediction.box import on_claimed_device
from voxmill.prediction.predictor import Predictor, Written
from voxmill.runtime.jobs import job


@job
def predict_tile(
    *,
    tile: str,
    source: dict,
    plan_path: str,
    statistics_path: str,
    weights_path: str,
    output_path: str,
    image_path: str,
    storage: Mapping[str, str],
    settings: dict,
    code: str,
    threads: int,
    gpus: int = 0,
    record_path: str | None = None,
) -> None:
    """Write the prediction of one tile: the map of cells in its core, a shard of an array.

    One that is whole and was made from the same is kept.

    Parameters
    ----------
    tile : str
        Its name.
    source : dict
        Where the tile is read from, see `voxmill.tiles.tile_source.open_tiles`.
    plan_path, statistics_path, weights_path : path
        Inputs; the model's card lies beside the weights.
    output_path : path
        JSON under the tile's name: what the shard was made from, its file and checksum.
    image_path : path
        Folder of the image; the shard becomes a file of its level 0.
    storage : dict
        `dtype` and `compression` of the stored probabilities.
    settings : dict
        See `PredictionSettings`.
    code : str
        Digest of the code, kept with the prediction.
    threads : int
    gpus : int
        GPUs that the job asked for; see `voxmill.runtime.devices.claim`.
    record_path : path, optional
        Where the job records when and where it ran, and on which GPU.

    Raises
    ------
    VoxmillError
        If an input is missing, broken or of another plan, or a GPU that was asked for is not
        there.
    """
    inputs = (plan_path, statistics_path, weights_path)
    checked = PredictionSettings.from_dict(settings)
    written = Written(image_path, str(Path(output_path).parent), storage)
    predictor = Predictor(*inputs, written, checked, code, threads)
    claim = partial(on_claimed_device, checked, gpus, output_path, record_path)
    predictor.run([tile], source, claim)
