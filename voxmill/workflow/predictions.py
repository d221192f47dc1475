"""Inputs and params of halo, networks, predictions and stitching."""

from dataclasses import dataclass
from pathlib import Path

from voxmill.geometry import Triple
from voxmill.prediction.identity import card_digest
from voxmill.tiles.batches import MOST_JOBS
from voxmill.workflow.configuration import Config
from voxmill.workflow.wildcards import Mark, Settings, Wildcards


@dataclass(frozen=True)
class Predictions:
    """What rules ask about the predictions of a configuration.

    Parameters
    ----------
    config : Config
    ancient : callable
        Marks an input whose date reruns nothing.
    """

    config: Config
    ancient: Mark

    def settings(self, wildcards: Wildcards) -> Settings:
        """How networks are run."""
        settings: Settings = self.config.settings["prediction"]
        return settings

    def weights(self, wildcards: Wildcards) -> str:
        """Weights file of a network."""
        path: str = self.config.settings["networks"][wildcards.network]["weights"]
        return path

    def card(self, wildcards: Wildcards) -> str:
        """Model card of a network, beside its weights."""
        return str(Path(self.weights(wildcards)).with_suffix(".json"))

    def model_digest(self, wildcards: Wildcards) -> str:
        """Short digest of a network's weights, which predictions carry."""
        return self.config.weights_sha256[wildcards.network][:16]

    def model(self, wildcards: Wildcards) -> str:
        """What weights and card say about a network's numbers: their dates may be older ones."""
        return card_digest(self.config.cards[wildcards.network])

    def halo_vox(self, wildcards: Wildcards) -> Triple | None:
        """The halo z, y, x, or None where it is measured."""
        return self.config.halo_vox(wildcards.volume)

    def halo_settings(self, wildcards: Wildcards) -> Settings:
        """Settings of the measurement of the halo, and of the look at the seams."""
        return {"tolerance": self.config.settings["tiles"]["halo_tolerance"]}

    def measured_halos(self, wildcards: Wildcards) -> list[str]:
        """Halo measurements of all networks of a volume, where the halo is `auto`."""
        if self.config.halo_vox(wildcards.volume) is not None:
            return []
        networks = self.config.volumes[wildcards.volume].networks
        return [f"results/{wildcards.volume}/{network}/halo.json" for network in networks]

    def tiles_of_batch(self, wildcards: Wildcards) -> list[str]:
        """Names of the tiles that one job predicts."""
        return list(self.config.batches(wildcards.volume).tiles(wildcards.batch))

    def of_slab(self, wildcards: Wildcards) -> list[str]:
        """Predictions of the tiles of one slab, or the manifests of the jobs that predict them."""
        numbers = self.config.grid(wildcards.volume).slab(wildcards.slab)
        return made_by_jobs(self.config, wildcards.volume, wildcards.network, numbers)

    def storage(self, wildcards: Wildcards) -> Settings:
        """How probabilities are stored."""
        return self.config.probability_storage

    def is_pilot(self, wildcards: Wildcards) -> bool:
        """Whether no more than a part of a volume is predicted."""
        return self.config.part(wildcards.volume) is not None


def made_by_jobs(config: Config, volume: str, network: str, numbers: range) -> list[str]:
    """What the jobs make that predict a range of tiles: a prediction each, or their manifests."""
    folder, batches = f"results/{volume}/{network}", config.batches(volume)
    if batches.size == 1:
        return [f"{folder}/predictions/{batches.grid.name(number)}.json" for number in numbers]
    return [f"{folder}/batches/{name}.json" for name in batches.meeting(numbers)]


def many(config: Config, volume: str) -> bool:
    """Whether targets ask for the slabs of a volume, not for what each job makes of it.

    Together with the lists of its tiles, that would be more files than a target should have.
    """
    networks = len(config.volumes[volume].networks)
    jobs = len(config.cuts(volume)) + networks * len(config.batches(volume))
    return jobs > MOST_JOBS


def slab_manifests(config: Config, volume: str, network: str) -> list[str]:
    """Manifests of all slabs of a volume's predictions."""
    slabs = config.grid(volume).slabs
    return [f"results/{volume}/{network}/slabs/{slab}.json" for slab in slabs]
