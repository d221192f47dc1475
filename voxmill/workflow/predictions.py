"""Inputs and params of halo, networks, predictions and stitching."""

from dataclasses import dataclass
from pathlib import Path

from voxmill.geometry import Triple
from voxmill.tiles.predicted import forget, lost_tiles
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
        """The tiles that one job predicts."""
        names = self.config.batches(wildcards.volume)[wildcards.batch]
        return [f"results/{wildcards.volume}/tiles/{name}.tif" for name in names]

    def batch_of_tile(self, wildcards: Wildcards) -> str | list[str]:
        """Where several tiles share a job: a tile alone is made only when that job has ended."""
        name = self._batch(wildcards.volume, wildcards.tile)
        return [] if name is None else self.ancient(f"{_folder(wildcards)}/batches/{name}.json")

    def _batch(self, volume: str, tile: str) -> str | None:
        if self.config.tiles_per_job == 1:
            return None
        batches = self.config.batches(volume)
        return next(name for name, tiles in batches.items() if tile in tiles)

    def of_slab(self, wildcards: Wildcards) -> list[str]:
        """Predictions of the tiles of one slab, or the manifests of the jobs that predict them."""
        names = self.config.tiles_of_slab(wildcards.volume, wildcards.slab)
        if self.config.tiles_per_job == 1:
            return [f"{_folder(wildcards)}/predictions/{name}.json" for name in names]
        return [
            f"{_folder(wildcards)}/batches/{batch}.json"
            for batch, tiles in self.config.batches(wildcards.volume).items()
            if not set(names).isdisjoint(tiles)
        ]

    def storage(self, wildcards: Wildcards) -> Settings:
        """How probabilities are stored."""
        section = self.config.settings["stitching"]
        return {key: section[key] for key in ("dtype", "compression")}

    def rows_below(self, wildcards: Wildcards) -> list[str]:
        """Lists of the shards that one row of a level of the pyramid is made from."""
        number = int(wildcards.level)
        if not 0 < number < len(levels := self.config.levels(wildcards.volume)):
            return []
        below = self._rows(wildcards, number - 1)
        return [below[row] for row in levels[number].rows_below(int(wildcards.row), len(below))]

    def all_rows(self, wildcards: Wildcards) -> list[str]:
        """Lists of the shards of all rows of all levels of a volume's predictions.

        A pilot has no more than the finest level: it would be made of what is not predicted.
        """
        numbers = range(
            1 if self.is_pilot(wildcards) else len(self.config.levels(wildcards.volume))
        )
        return [row for number in numbers for row in self._rows(wildcards, number)]

    def _rows(self, wildcards: Wildcards, level: int) -> list[str]:
        folder, volume = _folder(wildcards), wildcards.volume
        if level == 0:
            return [f"{folder}/slabs/{slab}.json" for slab in self.config.slabs(volume)]
        count = -(-self.config.levels(volume)[level].shape[0] // self.config.tile_shape_vox[0])
        return [f"{folder}/levels/{level}/{row}.json" for row in range(count)]

    def is_pilot(self, wildcards: Wildcards) -> bool:
        """Whether no more than a part of a volume is predicted."""
        return self.config.part(wildcards.volume) is not None

    def forget_lost(self) -> list[str]:
        """Have tiles predicted again whose shards are gone; returns what to say about it.

        Shards are no outputs that Snakemake looks for: their folders are listed here, and what is
        known about a lost one is removed, as it tells of nothing any more.
        """
        said = []
        for volume, section in self.config.volumes.items():
            starts = self.config.starts(volume)
            for network in section.networks:
                folder = f"results/{volume}/{network}"
                lost = lost_tiles(folder, starts, self.config.tile_shape_vox)
                for name in lost:
                    forget(folder, name, self._batch(volume, name))
                if lost:
                    said.append(
                        f"{folder}/probability.ome.zarr: {len(lost)} shards are gone, of tile "
                        f"{lost[0]} first: they are predicted again."
                    )
        return said


def _folder(wildcards: Wildcards) -> str:
    return f"results/{wildcards.volume}/{wildcards.network}"
