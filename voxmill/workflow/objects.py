"""Inputs and params of labels, their measurement and their evaluation."""

from dataclasses import dataclass

from voxmill.config.objects import ObjectSettings
from voxmill.config.seams import SeamSettings
from voxmill.geometry import Triple, VoxelSize
from voxmill.networks.heads import MASK_THRESHOLD, parts_objects
from voxmill.workflow.configuration import Config
from voxmill.workflow.volumes import Volumes
from voxmill.workflow.wildcards import Settings, Wildcards

# Of the image's foreground, by `python benchmarks/outlines.py foreground`.
_IMAGE_THRESHOLD = 0.45
# Bytes of a voxel of a window while it is labelled: foreground, labels, distances, territories.
_BYTES = {"probability": 24, "image": 40}
LABEL_THREADS = 4


@dataclass(frozen=True)
class Objects:
    """What rules ask about labels."""

    config: Config
    volumes: Volumes

    def settings(self, wildcards: Wildcards) -> Settings:
        """Settings of the labels, from the model's card where asked for."""
        section = self.config.settings["segment"]
        settings: Settings = {k: v for k, v in section.items() if k not in ("formats", "tables")}
        card = self.config.cards[wildcards.network]
        cells = self.config.cell_settings(wildcards.volume, wildcards.network)
        if settings["foreground"] == "model":
            masks = card.outputs[0] != "centroid" or parts_objects(card.outputs)
            settings["foreground"] = "probability" if masks else "image"
        if settings["threshold"] == "model":
            if settings["foreground"] == "image":
                settings["threshold"] = _IMAGE_THRESHOLD
            else:
                parted = parts_objects(card.outputs)
                settings["threshold"] = MASK_THRESHOLD if parted else cells["threshold"]
        if settings["largest_radius_um"] == "model":
            own = self.config.volumes[wildcards.volume].settings.get("cell_diameter_um")
            diameter = own or card.cell_diameter_um or 2 * cells["min_distance_um"]
            settings["largest_radius_um"] = diameter
        return settings

    def foreground(self, wildcards: Wildcards) -> str:
        """The file that says which voxels belong to cells: the probability's or the volume's."""
        if self.settings(wildcards)["foreground"] == "image":
            return self.volumes.file(wildcards)
        return f"results/{wildcards.volume}/{wildcards.network}/probability.ome.zarr/zarr.json"

    def source(self, wildcards: Wildcards) -> Settings | None:
        """Arguments of `voxmill.volumes.read_header` where the foreground is the image's."""
        if self.settings(wildcards)["foreground"] == "image":
            return self.volumes.arguments(wildcards)
        return None

    def slab_memory_mb(self, wildcards: Wildcards, attempt: int = 1) -> int:
        """Memory of the labelling of a slab: a window for each thread."""
        window_mb = self._window_mb(wildcards, self.config.tile_shape_vox)
        return attempt * (1000 + LABEL_THREADS * window_mb)

    def seam_memory_mb(self, wildcards: Wildcards, attempt: int = 1) -> int:
        """Memory of the look at the seams of labels: one window."""
        edge = SeamSettings().window_vox
        return attempt * (1000 + self._window_mb(wildcards, (edge, edge, edge)))

    def _window_mb(self, wildcards: Wildcards, core_vox: Triple) -> int:
        """Memory of a core with what its labels depend on."""
        from voxmill.cells.label_slab import needed_margin  # slow to import

        checked = ObjectSettings.from_dict(self.settings(wildcards))
        volume = self.config.volumes[wildcards.volume]
        by = needed_margin(checked, VoxelSize.of(volume.voxel_size_um))
        voxels = 1
        for core, around, edge in zip(core_vox, by, volume.shape, strict=True):
            voxels *= min(core + 2 * around, edge)
        return voxels * _BYTES[checked.foreground] // 1_000_000

    def truth(self, wildcards: Wildcards) -> str:
        """The ground truth of labels of a volume: the user's, or the phantom's."""
        if self.config.volumes[wildcards.volume].path is None:
            return f"results/{wildcards.volume}/phantom_labels.tif"
        return self.volumes.truth_file(wildcards)

    def targets(self) -> list[str]:
        """All that `snakemake segment` makes."""
        section = self.config.settings["segment"]
        names = ["labels.ome.zarr/zarr.json", "label_seams.json", "cells_measured.csv"]
        names += ["labels.ome.tif"] * ("ome-tiff" in section["formats"])
        names += ["cells_measured.parquet"] * ("parquet" in section["tables"])
        judged = ["instances.json", "instances.png"]
        return [
            f"results/{volume}/{network}/{name}"
            for volume, section in self.config.volumes.items()
            for network in section.networks
            for name in (names + judged * self._has_labels(volume))
        ]

    def _has_labels(self, volume: str) -> bool:
        section = self.config.volumes[volume]
        if section.box:
            return False  # the truth is of the whole volume
        return section.path is None or section.settings.get("truth", {}).get("kind") == "labels"
