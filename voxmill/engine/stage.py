"""Evaluate one stage of layers on one tile and write its maps for the stages after it."""

import numpy as np

from voxmill.engine.box import PredictionSettings, on_claimed_device
from voxmill.engine.layers import map_keys
from voxmill.engine.predict import Predictor, made_with
from voxmill.jobs import job
from voxmill.maps import write_maps


@job
def evaluate_stage(
    *,
    tile_path: str,
    plan_path: str,
    statistics_path: str,
    weights_path: str,
    output_path: str,
    settings: dict,
    layers: dict,
    code: str,
    threads: int,
    gpus: int = 0,
    record_path: str | None = None,
) -> None:
    """Write the new maps of one stage in one tile's core.

    Parameters
    ----------
    output_path : path
        A file of `voxmill.maps`, named after the tile.
    layers : dict
        The stage, and the files of those before it: see `voxmill.engine.layers.StageFiles`.
    tile_path, plan_path, statistics_path, weights_path, settings, code, threads, gpus, record_path
        As of `voxmill.engine.predict.predict_tile`; so are the errors.
    """
    settings = PredictionSettings(**settings)
    digest = made_with(settings, code, layers)
    with on_claimed_device(settings, gpus, output_path, record_path) as held:
        predictor = _StagePredictor(
            plan_path, statistics_path, weights_path, held, digest, threads, layers
        )
        predictor.run([(tile_path, output_path)])


class _StagePredictor(Predictor):
    def _write(self, pair: tuple[str, str], maps: np.ndarray) -> None:
        stage = self.files.stage(self._network.settings)
        keys = self._keys(pair[1])
        write_maps(pair[1], maps, map_keys(keys["tile"], keys["model"], stage))
