"""Predict any box of a volume with a halo of a given size, in blocks that fit the memory."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from voxmill.config.prediction import PredictionSettings
from voxmill.engine.backends import choose
from voxmill.geometry import Box
from voxmill.networks.heads import cell_map
from voxmill.networks.models import ModelCard
from voxmill.prediction.box import predict, resolve_device
from voxmill.prediction.memory import SHARE, box_bytes
from voxmill.runtime.free_memory import free_bytes
from voxmill.runtime.jobs import logger
from voxmill.volumes.normalisation import Normaliser
from voxmill.volumes.protocols import ReadableVolume

HALOS_VOX = (0, 2, 4, 6, 8, 10, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96)
"""The halos that are tried, voxels on each side."""


@dataclass
class VolumePredictor:
    """A model on an opened volume.

    Parameters
    ----------
    card, network
        As `voxmill.networks.models.load` returns them.
    volume : ReadableVolume
        Grey values.
    normalise : callable
        As `voxmill.volumes.grey_values.GreyValues.normaliser` returns it.
    settings : PredictionSettings
    threads : int
        CPU threads to use.
    """

    card: ModelCard
    network: Any
    volume: ReadableVolume
    normalise: Normaliser
    settings: PredictionSettings
    threads: int

    def read(self, box: Box) -> np.ndarray:
        """Normalised voxels (z, y, x) of a box, float32."""
        return self.normalise(self.volume.read_window(*box), box.start)

    def predict(self, box: Box, halo_vox: int, within: Box | None = None) -> np.ndarray:
        """Probability of a box, predicted with a halo around it.

        Parameters
        ----------
        box : Box
            Absolute voxels.
        halo_vox : int
            Voxels on each side, clipped at the volume's border.
        within : Box, optional
            Clipped at the faces of this one too, as by a tile that is cut out of the volume.

        Returns
        -------
        (z, y, x) float32 array
            Of the box; see `voxmill.networks.heads.cell_map`.
        """
        window = box.grow(halo_vox, within=within or Box.from_shape(self.volume.shape))
        maps = predict(
            self.network, self.read(window), self.settings, self.threads,
            core=box.relative_to(window.start), halo=(halo_vox,) * 3, origin=window.start,
        )  # fmt: skip
        return cell_map(self.card.outputs, maps)

    def largest_halo(self) -> int:
        """The halo that stands for the whole volume, voxels on each side.

        It is the theoretical one, or the largest of `HALOS_VOX` where that is less, or the largest
        with which one voxel fits the memory; the log then warns. If not even the smallest fits,
        the prediction says what is missing.
        """
        device, precision = resolve_device(self.settings.device), self.settings.precision
        budget = int(SHARE * free_bytes(device))
        most = min(self.card.receptive_radius_vox, HALOS_VOX[-1])
        for halo in (most, *(h for h in reversed(HALOS_VOX) if h < most)):
            z, y, x = (min(2 * halo + 1, n) for n in self.volume.shape)
            shape = z, y, x
            backend = choose(self.settings.backend, self.network, device, precision, shape)
            if box_bytes(backend, self.network.settings, precision, shape, device) <= budget:
                break
        if halo < most:
            logger.warning(
                "a halo of %d voxels does not fit the free memory: going on with %d", most, halo
            )
        return halo
