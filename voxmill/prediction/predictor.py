"""Predict tiles: read, normalise, run the network, keep the core, write."""

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from voxmill.config.prediction import PredictionSettings
from voxmill.networks import models
from voxmill.networks.heads import cell_map
from voxmill.networks.stored import Network
from voxmill.prediction.box import resolve_device
from voxmill.prediction.identity import identity
from voxmill.prediction.memory import InBlocks, budget_of
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.jobs import log_rate, logger, overlapped
from voxmill.runtime.rates import predicted_as, remember
from voxmill.tiles.plan import REMAKE, read_plan
from voxmill.tiles.predicted import (
    PlannedImage,
    PredictedTile,
    check_identity,
    read_predicted,
)
from voxmill.tiles.tile_source import TileSource, open_tiles
from voxmill.volumes.grey_values import read_grey_values
from voxmill.volumes.multiscale import ROOT
from voxmill.volumes.probability import to_stored


@dataclass(frozen=True)
class Written:
    """Where predictions go.

    Parameters
    ----------
    image_path : path
        Folder of the image; level 0 holds a shard for each tile.
    predictions_folder : path
        Holds a JSON file for each tile, under its name: what its shard was made from.
    storage : dict
        `dtype` and `compression` of the stored probabilities.
    """

    image_path: str
    predictions_folder: str
    storage: Mapping[str, str]

    def path(self, name: str) -> Path:
        """The JSON file of a tile."""
        return Path(self.predictions_folder, f"{name}.json")


class Predictor:
    """What the predictions of one job share: the plan, the statistics and the model.

    Parameters
    ----------
    plan_path, statistics_path, weights_path : path
    written : Written
    settings : PredictionSettings
        As configured; `run` asks for those with the device that the job holds.
    code : str
        Digest of the code, kept with each prediction.
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
        written: Written,
        settings: PredictionSettings,
        code: str,
        threads: int,
    ):
        self.weights_path = weights_path
        self.plan = read_plan(plan_path)
        self.grey = read_grey_values(statistics_path, self.plan.fingerprint)
        self.written, self.settings, self.threads = written, settings, threads
        self.card = models.read_card(weights_path)
        self.array = PlannedImage.planned(written.image_path, self.plan, written.storage).arrays[0]
        self._normalise = self.grey.normaliser(self.card.normalisation)
        # By a relative name, which `runtime.digests` does not follow: warnings change no result.
        appearance = importlib.import_module("..volumes.appearance", __package__)
        for sentence in appearance.unlike(self.card.seen, self.grey, self.card.normalisation):
            logger.warning("%s: %s", weights_path, sentence)
        shared = identity(self.card, self.grey.statistics, settings, code)
        self._shared = shared | {"array": self.array.digest}
        self._tiles: TileSource
        self._loaded: Future[tuple[Network, str, int | None]]

    def run(
        self,
        names: Sequence[str],
        source: Mapping[str, Any],
        claim: Callable[[], AbstractContextManager[PredictionSettings]],
    ) -> list[PredictedTile]:
        """Predict tiles, but for those whose prediction is whole and of the same identity.

        A tile is read while the one before it is computed. Tiles without tissue are empty: no
        device is claimed for them, and no shard is written.

        Parameters
        ----------
        names : sequence of str
            Of the tiles.
        source : dict
            Where they are read from, see `open_tiles`.
        claim : callable
            Gives a context that holds the job's device and yields the settings with it.
        """
        with open_tiles(source, self.plan) as self._tiles:
            kept = {name: tile for name in names if (tile := self._whole(name))}
            logger.info("%d of %d tiles are predicted already", len(kept), len(names))
            left = [name for name in names if name not in kept]
            filled = [n for n in left if self.grey.tissue.has_tissue(self.plan.tile(n).core)]
            logger.info("%d of the other %d hold no tissue", len(left) - len(filled), len(left))
            for name in (n for n in left if n not in filled):
                self._store(name, np.zeros(self.plan.tile(name).core.shape, np.float32))
            if filled:
                with claim() as self.settings, ThreadPoolExecutor(1) as pool:
                    self._loaded = pool.submit(self._load)  # while the first tile is read
                    overlapped(filled, self._read, self._compute, self._write)
        for name, tile in kept.items():
            tile.write(self.written.path(name))  # of this run, for Snakemake
        return [read_predicted(self.written.path(name)) for name in names]

    def _whole(self, name: str) -> PredictedTile | None:
        """The prediction of a tile, if it is undamaged and made with what this job would use."""
        known = self.written.path(name)
        try:
            found = check_identity(read_predicted(known), self._identity(name), known)
            self.array.verify(found.stored, REMAKE)
        except VoxmillError:
            return None
        return found

    def _unmake_image(self) -> None:
        """Without its metadata the image is none, as it is no longer whole."""
        Path(self.written.image_path, ROOT).unlink(missing_ok=True)

    def _identity(self, name: str) -> dict[str, Any]:
        tile = self.plan.tile(name)
        return {"tile": tile.key, "voxels": self._tiles.crc32(tile), **self._shared}

    def _load(self) -> tuple[Network, str, int | None]:
        """Network, device, and the memory of an idle GPU, which later tiles find in use."""
        _, network = models.load_stored(self.weights_path)
        device = resolve_device(self.settings.device)
        return network, device, budget_of(device) if device.startswith("cuda") else None

    def _read(self, name: str) -> Callable[[], InBlocks]:
        tile = self.plan.tile(name)
        normalised = self._normalise(self._tiles.read(tile), tile.window.start)
        network, device, budget_bytes = self._loaded.result()
        settings = self.settings
        planned = partial(
            InBlocks, network, normalised[None], tile.core_in_window, self.plan.halo_vox,
            settings.backend, device, settings.precision, self.threads, budget_bytes,
            settings.flip_axes, tile.window.start,
        )  # fmt: skip
        if budget_bytes is None:  # what the host has free shows when the last tile is computed
            return planned
        sent = planned()
        sent.send()
        return lambda: sent

    def _compute(self, name: str, planned: Callable[[], InBlocks]) -> InBlocks:
        tile, settings = self.plan.tile(name), self.settings
        start = time.perf_counter()
        prediction = planned()
        prediction.compute()
        seconds = time.perf_counter() - start
        logger.info("network %s, %s, %d threads", self.card.name, settings, self.threads)
        log_rate(f"predicted {tile.name}", tile.window.size, seconds)
        _, device, _ = self._loaded.result()
        kind = predicted_as(self.card.weights_sha256, asdict(settings) | {"device": device})
        remember(kind, tile.window.size, seconds)
        return prediction

    def _write(self, name: str, prediction: InBlocks) -> None:
        core = prediction.result()
        if not np.isfinite(core).all():
            raise VoxmillError(
                f"{self.weights_path}: the prediction of tile {name} holds NaN or infinite values: "
                f"try precision float32 (now {self.settings.precision}), or train the network "
                "again."
            )
        self._store(name, cell_map(self.card.outputs, core))

    def _store(self, name: str, core: np.ndarray) -> None:
        tile = self.plan.tile(name)
        voxels, index = to_stored(core, self.array.dtype), self.array.index_of(tile.core.start)
        stored = self.array.write_shard(index, voxels, before=self._unmake_image)
        predicted = PredictedTile(name, self._identity(name), stored)
        predicted.write(self.written.path(name))
