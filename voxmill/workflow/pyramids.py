"""Inputs and params of the levels of images: probabilities and labels are made in one way."""

from dataclasses import dataclass

from voxmill.workflow.configuration import Config
from voxmill.workflow.wildcards import Settings, Wildcards

PROBABILITY, LABELS = "levels", "label_levels"
"""Folders of the lists of the shards of each level's rows."""


@dataclass(frozen=True)
class Pyramids:
    """What rules ask about the levels of an image."""

    config: Config

    def image(self, wildcards: Wildcards) -> str:
        """The folder of the image that a level belongs to."""
        name = "labels" if wildcards.levels == LABELS else "probability"
        return f"results/{wildcards.volume}/{wildcards.network}/{name}.ome.zarr"

    def storage(self, wildcards: Wildcards) -> Settings:
        """How the voxels of the image are stored."""
        if wildcards.levels == LABELS:
            from voxmill.cells.label_slab import STORAGE  # slow to import

            return dict(STORAGE)
        return self.config.probability_storage

    def how(self, wildcards: Wildcards) -> str:
        """How voxels of the level below become one: the mean of labels is another label."""
        return "mode" if wildcards.levels == LABELS else "mean"

    def how_in_tiff(self, wildcards: Wildcards) -> str:
        """The same for a file of the image."""
        return "mode" if wildcards.image == "labels" else "mean"

    def rows_below(self, wildcards: Wildcards) -> list[str]:
        """Lists of the shards that one row of a level is made from."""
        number = int(wildcards.level)
        if not 0 < number < len(levels := self.config.levels(wildcards.volume)):
            return []
        below = self._rows(wildcards, wildcards.levels, number - 1)
        rows = levels[number].rows_below(int(wildcards.row), len(below))
        return [path for row in rows for path in below[row]]

    def of_probability(self, wildcards: Wildcards) -> list[str]:
        """Lists of the shards of all rows of all levels of a volume's predictions.

        A pilot has no more than the finest level: it would be made of what is not predicted.
        """
        return self._all(wildcards, PROBABILITY)

    def of_labels(self, wildcards: Wildcards) -> list[str]:
        """The same of a volume's labels."""
        return self._all(wildcards, LABELS)

    def _all(self, wildcards: Wildcards, kind: str) -> list[str]:
        pilot = self.config.part(wildcards.volume) is not None
        numbers = range(1 if pilot else len(self.config.levels(wildcards.volume)))
        rows = [row for number in numbers for row in self._rows(wildcards, kind, number)]
        return [path for row in rows for path in row]

    def _rows(self, wildcards: Wildcards, kind: str, level: int) -> list[list[str]]:
        """Lists of the shards of each row of a level along z."""
        volume = wildcards.volume
        folder = f"results/{volume}/{wildcards.network}"
        if level == 0:
            finest = "labels" if kind == LABELS else "slabs"
            layers = self.config.grid(volume).layers
            return [[f"{folder}/{finest}/{slab}.json" for slab in layer] for layer in layers]
        count = -(-self.config.levels(volume)[level].shape[0] // self.config.tile_shape_vox[0])
        return [[f"{folder}/{kind}/{level}/{row}.json"] for row in range(count)]
