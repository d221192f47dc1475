"""Predict any box of a volume with a given context around it, in blocks that fit the memory."""

from dataclasses import dataclass

import numpy as np

from voxmill.engine.backends import choose
from voxmill.engine.box import PredictionSettings, predict, resolve_device
from voxmill.engine.free_memory import free_bytes
from voxmill.engine.memory import SHARE, box_bytes
from voxmill.jobs import logger
from voxmill.models import ModelCard
from voxmill.statistics import normalise
from voxmill.tiling import Triple, grow


@dataclass
class ContextPredictor:
    """A model on an opened volume.

    Parameters
    ----------
    card, network
        As `voxmill.models.load` returns them.
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

    def largest_context(self, contexts_vox) -> int:
        """The largest of some contexts with which at least one voxel fits the memory.

        Where it is less than what was wanted, the log says so. The smallest is taken unasked: if
        not even that fits, the prediction says what is missing.
        """
        device, precision = resolve_device(self.settings.device), self.settings.precision
        budget = int(SHARE * free_bytes(device))
        wanted = sorted(contexts_vox, reverse=True)
        for context in wanted:
            box = tuple(min(2 * context + 1, n) for n in self.volume.shape)
            backend = choose(self.settings.backend, self.network, device, precision, box)
            if box_bytes(backend, self.network.settings, precision, box) <= budget:
                break
        if context < wanted[0]:
            logger.warning(
                "a context of %d voxels does not fit the free memory: going on with %d",
                wanted[0], context,
            )  # fmt: skip
        return context
