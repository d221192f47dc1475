"""Predict tiles: read, normalise, run the network, keep the core, write."""

import hashlib
import json
import time
import zlib
from dataclasses import asdict
from pathlib import Path

import numpy as np

from voxmill.config.prediction import PredictionSettings
from voxmill.networks import models
from voxmill.prediction.box import resolve_device
from voxmill.prediction.memory import predict_in_blocks
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import read_json
from voxmill.runtime.jobs import log_rate, logger, overlapped
from voxmill.tiles.grid import Tile, Triple
from voxmill.tiles.plan import REMAKE, find_tile, read_plan
from voxmill.volumes import read_tile, write_tile
from voxmill.volumes.normalisation import normalise


def made_with(settings: PredictionSettings, code: str) -> str:
    """Digest of what, beside tile and model, decides about the numbers of a prediction."""
    identity = json.dumps([asdict(settings), code], sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


class Predictor:
    """What the predictions of one job share: the plan, the statistics and the model."""

    def __init__(self, plan_path, statistics_path, weights_path, settings, made_with, threads):
        self.plan_path, self.weights_path = plan_path, weights_path
        self.plan = read_plan(plan_path)
        self.statistics = read_json(statistics_path, "statistics")
        self.settings, self.made_with, self.threads = settings, made_with, threads
        self.card = models.read_card(weights_path)
        self._network = None

    def run(self, pairs: list[tuple[str, str]]) -> None:
        """Predict tiles (tile's file, output); a tile is read while the one before is computed."""
        overlapped(pairs, self._read, self._compute, self._write)

    def is_whole(self, path: str) -> bool:
        """Whether a prediction is there, undamaged and made with the same as this job's."""
        try:
            self._stored(path, self._keys(path))
        except VoxmillError:
            return False
        return True

    def entry(self, path: str) -> dict:
        """The line of a manifest about a prediction, which is read and verified for it."""
        keys = self._keys(path)
        return {
            "name": Path(path).stem,
            "path": path,
            "bytes": Path(path).stat().st_size,
            "crc32": zlib.crc32(self._stored(path, keys)),
            **keys,
        }

    def _stored(self, path: str, keys: dict) -> np.ndarray:
        box, _ = self._find(path)
        return read_tile(path, box.core_shape, np.float32, keys, REMAKE)

    def _find(self, path: str) -> tuple[Tile, str]:
        return find_tile(self.plan, Path(path).stem, self.plan_path)

    def _keys(self, path: str) -> dict:
        digest = self.card.weights_sha256[:16]
        return {"tile": self._find(path)[1], "model": digest, "made_with": self.made_with}

    def _read(self, pair: tuple[str, str]) -> np.ndarray:
        box, key = self._find(pair[0])
        dtype = self.plan["source"]["dtype"]
        voxels = read_tile(pair[0], box.window_shape, dtype, {"tile": key}, REMAKE)
        return normalise(voxels, self.statistics, self.card.normalisation)

    def _compute(self, pair: tuple[str, str], normalised: np.ndarray) -> np.ndarray:
        if self._network is None:  # here, so that the first tile is read meanwhile
            _, self._network = models.load_stored(self.weights_path)
        box, _ = self._find(pair[0])
        settings = self.settings
        start = time.perf_counter()
        core = predict_in_blocks(
            self._network, normalised[None], core_in_window(box), tuple(self.plan["halo_vox"]),
            settings.backend, resolve_device(settings.device), settings.precision, self.threads,
            flip_axes=settings.flip_axes, origin=box.window_start,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        logger.info("network %s, %s, %d threads", self.card.name, settings, self.threads)
        log_rate(f"predicted {box.name}", normalised.size, seconds)
        if not np.isfinite(core).all():
            raise VoxmillError(
                f"{self.weights_path}: the prediction of tile {box.name} holds NaN or infinite "
                f"values: try precision float32 (now {settings.precision}), or train the network "
                "again."
            )
        return core

    def _write(self, pair: tuple[str, str], core: np.ndarray) -> None:
        box, _ = self._find(pair[0])
        size = self.plan["source"]["voxel_size_um"]
        write_tile(pair[1], core[0], size, box.core_start, self._keys(pair[1]))


def core_in_window(box: Tile) -> tuple[Triple, Triple]:
    """Start and stop of a tile's core in its window."""
    places = [(part.start, part.stop) for part in box.core_in_window]
    return tuple(zip(*places, strict=True))
