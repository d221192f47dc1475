"""Predict any box of a volume with a given context around it, in blocks that fit the memory."""

from dataclasses import dataclass

import numpy as np

from voxmill.config.prediction import PredictionSettings
from voxmill.engine.backends import choose
from voxmill.networks.models import ModelCard
from voxmill.prediction.box import predict, resolve_device
from voxmill.prediction.memory import SHARE, box_bytes
from voxmill.runtime.free_memory import free_bytes
from voxmill.runtime.jobs import logger
from voxmill.tiles.grid import Triple, grow
from voxmill.volumes.normalisation import normalise

CONTEXTS_VOX = (0, 2, 4, 6, 8, 10, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96)


@dataclass
class ContextPredictor:
    """A model on an opened volume.

    Parameters
    ----------
    card, network
        As `voxmill.networks.models.load` returns them.
    volume
        Opened volume.
    statistics : dict
        Of the volume, for the normalisation.
    settings : PredictionSettings
    threads : int
    """

    card: ModelCard
    network: object
    volume: object
    statistics: dict
    settings: PredictionSettings
    threads: int

    def read(self, start: Triple, stop: Triple) -> np.ndarray:
        """Normalised voxels (z, y, x) of a box."""
        voxels = self.volume.read_window(start, stop)
        return normalise(voxels, self.statistics, self.card.normalisation)

    def predict(self, start: Triple, stop: Triple, context_vox: int) -> np.ndarray:
        """Probability (z, y, x) of a box, its context clipped at the volume's border."""
        context = (context_vox,) * 3
        outer, outer_stop = grow(start, stop, context, self.volume.shape)
        core = tuple(
            tuple(a - o for a, o in zip(side, outer, strict=True)) for side in (start, stop)
        )
        voxels = self.read(outer, outer_stop)
        return predict(
            self.network, voxels, self.settings, self.threads, core, context, origin=outer
        )[0]

    def largest_context(self) -> int:
        """The context that stands for the whole volume, voxels.

        The theoretical one, or the largest of `CONTEXTS_VOX` where that is less, or the largest
        with which one voxel fits the memory; the log then warns. If not even the smallest fits,
        the prediction says what is missing.
        """
        device, precision = resolve_device(self.settings.device), self.settings.precision
        budget = int(SHARE * free_bytes(device))
        most = min(self.card.receptive_radius_vox, CONTEXTS_VOX[-1])
        for context in (most, *(c for c in reversed(CONTEXTS_VOX) if c < most)):
            box = tuple(min(2 * context + 1, n) for n in self.volume.shape)
            backend = choose(self.settings.backend, self.network, device, precision, box)
            if box_bytes(backend, self.network.settings, precision, box) <= budget:
                break
        if context < most:
            logger.warning(
                "a context of %d voxels does not fit the free memory: going on with %d",
                most, context,
            )  # fmt: skip
        return context
