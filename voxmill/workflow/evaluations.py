"""Inputs and params of cells, their evaluation and the report."""

from dataclasses import dataclass
from pathlib import Path

from voxmill.prediction.identity import card_digest
from voxmill.workflow.configuration import Config
from voxmill.workflow.wildcards import Settings, Wildcards

# Formats that are made of labels alone.
_OF_LABELS = ("rois", "meshes")


@dataclass(frozen=True)
class Evaluations:
    """What rules ask about cells and their evaluation."""

    config: Config

    def cell_settings(self, wildcards: Wildcards) -> Settings:
        """Settings of the detector, from the model's card where asked for."""
        return self.config.cell_settings(wildcards.volume, wildcards.network)

    def baseline_settings(self, wildcards: Wildcards) -> Settings:
        """Settings of the difference of Gaussians."""
        distance = self.config.max_distance_um(wildcards.volume)
        cells = self.config.settings["cells"] | self._section(wildcards).get("cells", {})
        return {
            "cell_diameter_um": 2 * distance,
            "min_distance_um": cells["min_distance_um"],
            "max_distance_um": distance,
        }

    def settings(self, wildcards: Wildcards) -> Settings:
        """Settings of the evaluation of one volume."""
        section = dict(self.config.settings["evaluation"])
        section.pop("baseline")
        region = self.config.volumes[wildcards.volume].region
        return section | {
            "region": str(region) if region else None,
            "max_distance_um": self.config.max_distance_um(wildcards.volume),
        }

    def weights_if_any(self, wildcards: Wildcards) -> str | list[str]:
        """Weights of the network that found cells; none of the baseline."""
        network = self.config.settings["networks"].get(wildcards.method)
        return [] if network is None else str(network["weights"])

    def card_if_any(self, wildcards: Wildcards) -> str | list[str]:
        """Card of the network that found cells; none of the baseline."""
        weights = self.weights_if_any(wildcards)
        return str(Path(weights).with_suffix(".json")) if isinstance(weights, str) else []

    def model_if_any(self, wildcards: Wildcards) -> str:
        """What the network's card says about its numbers and about what it has seen."""
        card = self.config.cards.get(wildcards.method)
        return card_digest(card, "seen") if card else ""

    def max_distance_um(self, wildcards: Wildcards) -> float:
        """Matching distance of one volume."""
        return self.config.max_distance_um(wildcards.volume)

    def matches_if_any(self, wildcards: Wildcards) -> str | list[str]:
        """Matched points of a network, where the volume has a ground truth."""
        if self.config.volumes[wildcards.volume].has_truth:
            return f"results/{wildcards.volume}/{wildcards.network}/matches.csv"
        return []

    def images_to_show(self, wildcards: Wildcards) -> dict[str, str]:
        """OME-Zarr images of a volume and of a network's probability, by name."""
        volume = self.config.volumes[wildcards.volume]
        images = {"probability": f"results/{volume.name}/{wildcards.network}/probability.ome.zarr"}
        if volume.path is not None and volume.path.rstrip("/").endswith(".zarr"):
            images = {"image": volume.path, **images}
        return images

    def labels_if_any(self, wildcards: Wildcards) -> str | list[str]:
        """What says that a network's labels are whole, where the format has use for them."""
        shown = self.config.settings["export"]["labels"]
        if wildcards.format in _OF_LABELS or (wildcards.format == "neuroglancer" and shown):
            return f"results/{wildcards.volume}/{wildcards.network}/labels.ome.zarr/zarr.json"
        return []

    def export_box(self, wildcards: Wildcards) -> str | None:
        """The part of the volume whose cells are written as outlines or surfaces."""
        box: str | None = self.config.settings["export"].get("box")
        return box if wildcards.format in _OF_LABELS else None

    def export_url(self, wildcards: Wildcards) -> str:
        """Where a server hands out the working directory."""
        url: str = self.config.settings["export"]["url"]
        return url

    def methods(self, wildcards: Wildcards) -> list[str]:
        """Names of all methods on one volume."""
        return methods_of(self.config, wildcards.volume)

    def of_volume(self, wildcards: Wildcards) -> list[str]:
        """Evaluations of all methods on one volume."""
        folder = f"results/{wildcards.volume}"
        return [f"{folder}/{method}/evaluation.json" for method in self.methods(wildcards)]

    def _section(self, wildcards: Wildcards) -> Settings:
        return self.config.volumes[wildcards.volume].settings


def methods_of(config: Config, volume: str) -> list[str]:
    """What finds cells in a volume: its networks, and the baseline where asked for."""
    section = config.volumes[volume]
    wanted = section.settings.get("baseline", config.settings["evaluation"]["baseline"])
    baseline = wanted and section.has_truth
    return [*config.volumes[volume].networks, *(["baseline"] if baseline else [])]
