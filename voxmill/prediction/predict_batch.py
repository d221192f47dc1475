"""Predict several tiles in one job."""

from pathlib import Path

from voxmill.config.prediction import PredictionSettings
from voxmill.prediction.box import on_claimed_device
from voxmill.prediction.predictor import Predictor, made_with
from voxmill.runtime.checked import write_checked_json
from voxmill.runtime.jobs import job, logger


@job
def predict_batch(
    *,
    tiles: list[str],
    source: dict,
    plan_path: str,
    statistics_path: str,
    weights_path: str,
    predictions_folder: str,
    manifest_path: str,
    settings: dict,
    code: str,
    threads: int,
    gpus: int = 0,
    record_path: str | None = None,
) -> None:
    """Write the predictions of several tiles with one start, one device and one model.

    Each is a file of its own, the same as `predict_tile` writes. Where the manifest is missing,
    an earlier attempt may have been stopped: its complete predictions are kept if they were made
    with the same settings and code. Where the manifest is there, all are made anew.

    Parameters
    ----------
    tiles : list of str
        Their names.
    predictions_folder : path
        Where the predictions go, under the tiles' names.
    manifest_path : path
        JSON, written at the end: name, path, key, bytes and checksum of each prediction.
    source, plan_path, statistics_path, weights_path, settings, code, threads, gpus, record_path
        As of `voxmill.prediction.predict_tile`; so are the errors.
    """
    inputs = (plan_path, statistics_path, weights_path)
    checked = PredictionSettings.from_dict(settings)
    pairs = [(tile, str(Path(predictions_folder) / f"{tile}.tif")) for tile in tiles]
    resumed = not Path(manifest_path).exists()
    with on_claimed_device(checked, gpus, manifest_path, record_path) as held:
        predictor = Predictor(*inputs, held, made_with(checked, code), threads)
        left = [pair for pair in pairs if not (resumed and predictor.is_whole(pair[1]))]
        logger.info("%d of %d tiles are there already", len(pairs) - len(left), len(pairs))
        predictor.run(source, left)
        write_checked_json(manifest_path, {"tiles": [predictor.entry(path) for _, path in pairs]})
