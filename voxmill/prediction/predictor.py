"""Predict tiles: read, normalise, run the network, keep the core, write."""

import hashlib
import json
import time
import zlib
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from voxmill.config.prediction import PredictionSettings
from voxmill.networks import models
from voxmill.networks.stored import Network
from voxmill.prediction.box import resolve_device
from voxmill.prediction.memory import predict_in_blocks
from voxmill.runtime.checked import read_checked_json
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.jobs import log_rate, logger, overlapped
from voxmill.runtime.rates import predicted_as, remember
from voxmill.tiles.plan import REMAKE, PlannedTile, read_plan
from voxmill.tiles.tile_source import TileSource, open_tiles
from voxmill.volumes import read_tile, write_tile
from voxmill.volumes.normalisation import normalise


def made_with(settings: PredictionSettings, code: str) -> str:
    """Digest of what, besides tile and model, decides the numbers of a prediction."""
    identity = json.dumps([asdict(settings), code], sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


class Predictor:
    """What the predictions of one job share: the plan, the statistics and the model.

    Parameters
    ----------
    plan_path, statistics_path, weights_path : path
    settings : PredictionSettings
        With the device that the job holds.
    made_with : str
        As `made_with` gives it; kept with each prediction.
    threads : int

    Raises
    ------
    VoxmillError
        If an input is missing or broken.
    """

    def __init__(
        self,
        plan_path: str,
        statistics_path: str,
        weights_path: str,
        settings: PredictionSettings,
        made_with: str,
        threads: int,
    ):
        self.weights_path = weights_path
        self.plan = read_plan(plan_path)
        self.statistics = read_checked_json(statistics_path, "statistics")
        self.settings, self.made_with, self.threads = settings, made_with, threads
        self.card = models.read_card(weights_path)
        self._network: Network | None = None

    def run(self, source: dict, pairs: list[tuple[str, str]]) -> None:
        """Predict tiles, given as pairs (the tile's name, the output).

        A tile is read while the one before it is computed; see `open_tiles` for the source.
        """
        with open_tiles(source, self.plan.volume.dtype) as tiles:
            overlapped(pairs, partial(self._read, tiles), self._compute, self._write)

    def is_whole(self, path: str) -> bool:
        """Whether a prediction is there, undamaged, and made with what this job would use."""
        try:
            self._stored(path, self._keys(path))
        except VoxmillError:
            return False
        return True

    def entry(self, path: str) -> dict:
        """The entry of a prediction in a manifest; the prediction is read and verified for it."""
        keys = self._keys(path)
        return {
            "name": Path(path).stem,
            "path": path,
            "bytes": Path(path).stat().st_size,
            "crc32": zlib.crc32(self._stored(path, keys).data),
            **keys,
        }

    def _stored(self, path: str, keys: dict) -> np.ndarray:
        return read_tile(path, self._tile(path).core.shape, np.float32, keys, REMAKE)

    def _tile(self, path: str) -> PlannedTile:
        """The tile that a file is named after."""
        return self.plan.tile(Path(path).stem)

    def _keys(self, path: str) -> dict[str, str]:
        digest = self.card.weights_sha256[:16]
        return {"tile": self._tile(path).key, "model": digest, "made_with": self.made_with}

    def _read(self, tiles: TileSource, pair: tuple[str, str]) -> np.ndarray:
        voxels = tiles.read(self._tile(pair[0]))
        return normalise(voxels, self.statistics, self.card.normalisation)

    def _compute(self, pair: tuple[str, str], normalised: np.ndarray) -> np.ndarray:
        if self._network is None:  # here, so that the first tile is read meanwhile
            _, self._network = models.load_stored(self.weights_path)
        tile, settings = self._tile(pair[0]), self.settings
        device = resolve_device(settings.device)
        start = time.perf_counter()
        core = predict_in_blocks(
            self._network, normalised[None], tile.core_in_window, self.plan.halo_vox,
            settings.backend, device, settings.precision, self.threads,
            flip_axes=settings.flip_axes, origin=tile.window.start,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        logger.info("network %s, %s, %d threads", self.card.name, settings, self.threads)
        log_rate(f"predicted {tile.name}", normalised.size, seconds)
        kind = predicted_as(self.card.weights_sha256, asdict(settings) | {"device": device})
        remember(kind, normalised.size, seconds)
        if not np.isfinite(core).all():
            raise VoxmillError(
                f"{self.weights_path}: the prediction of tile {tile.name} holds NaN or infinite "
                f"values: try precision float32 (now {settings.precision}), or train the network "
                "again."
            )
        return core

    def _write(self, pair: tuple[str, str], core: np.ndarray) -> None:
        origin, size = self._tile(pair[0]).core.start, self.plan.volume.voxel_size_um
        write_tile(pair[1], core[0], size, origin, self._keys(pair[1]))
