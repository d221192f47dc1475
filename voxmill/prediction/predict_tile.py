"""Predict one tile in a job of its own."""

from voxmill.config.prediction import PredictionSettings
from voxmill.prediction.box import on_claimed_device
from voxmill.prediction.predictor import Predictor, made_with
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
    settings: dict,
    code: str,
    threads: int,
    gpus: int = 0,
    record_path: str | None = None,
) -> None:
    """Write the prediction of one tile: the first output map of its core, float32.

    Parameters
    ----------
    tile : str
        Its name.
    source : dict
        Where the tile is read from, see `voxmill.tiles.tile_source.open_tiles`.
    plan_path, statistics_path, weights_path : path
        Inputs; the model's card lies beside the weights.
    output_path : path
        A TIFF file that carries the tile's key, the model's digest and a checksum.
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
    with on_claimed_device(checked, gpus, output_path, record_path) as held:
        predictor = Predictor(*inputs, held, made_with(checked, code), threads)
        predictor.run(source, [(tile, output_path)])
