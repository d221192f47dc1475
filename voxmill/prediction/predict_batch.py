"""Predict several tiles in one job."""

from collections.abc import Mapping
from functools import partial

from voxmill.config.prediction import PredictionSettings
from voxmill.prediction.box import on_claimed_device
from voxmill.prediction.predictor import Predictor, Written
from voxmill.runtime.checked import write_checked_json
from voxmill.runtime.jobs import job


@job
def predict_batch(
    *,
    tiles: list[str],
    source: dict,
    plan_path: str,
    statistics_path: str,
    weights_path: str,
    predictions_folder: str,
    image_path: str,
    storage: Mapping[str, str],
    manifest_path: str,
    settings: dict,
    code: str,
    threads: int,
    gpus: int = 0,
    record_path: str | None = None,
) -> None:
    """Write the predictions of several tiles with one start, one device and one model.

    Each is a shard and a JSON file of its own, the same as `predict_tile` writes; those that are
    whole and were made from the same are kept.

    Parameters
    ----------
    tiles : list of str
        Their names.
    predictions_folder : path
        Where the JSON files go, under the tiles' names.
    manifest_path : path
        JSON, written at the end: what those files hold.
    source, plan_path, statistics_path, weights_path, image_path, storage : dict, path
    settings, code, threads, gpus, record_path
        As of `voxmill.prediction.predict_tile`; so are the errors.
    """
    inputs = (plan_path, statistics_path, weights_path)
    checked = PredictionSettings.from_dict(settings)
    written = Written(image_path, predictions_folder, storage)
    predictor = Predictor(*inputs, written, checked, code, threads)
    claim = partial(on_claimed_device, checked, gpus, manifest_path, record_path)
    predicted = predictor.run(tiles, source, claim)
    write_checked_json(manifest_path, {"tiles": [tile.to_json() for tile in predicted]})
