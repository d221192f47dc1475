"""Inputs and params of cells, their evaluation and the report."""

from dataclasses import dataclass

from voxmill.workflow.configuration import Config
from voxmill.workflow.wildcards import Settings, Wildcards


@dataclass(frozen=True)
class Evaluations:
    """What rules ask about cells and their evaluation.

    Parameters
    ----------
    config : Config
    """

    config: Config

    def cell_settings(self, wildcards: Wildcards) -> Settings:
        """Settings of the detector, from the model's card where asked for."""
        return self.config.cell_settings(wildcards.volume, wildcards.network)

    def baseline_settings(self, wildcards: Wildcards) -> Settings:
        """Settings of the difference of Gaussians."""
        section = self.config.settings["evaluation"]
        return {
            "cell_diameter_um": 2 * section["max_distance_um"],
            "min_distance_um": self.config.settings["cells"]["min_distance_um"],
            "max_distance_um": section["max_distance_um"],
        }

    def settings(self, wildcards: Wildcards) -> Settings:
        """Settings of the evaluation of one volume."""
        section = dict(self.config.settings["evaluation"])
        section.pop("baseline")
        region = self.config.volumes[wildcards.volume].region
        return section | {"region": str(region) if region else None}

    def matches_if_any(self, wildcards: Wildcards) -> str | list[str]:
        """Matched points of a network, where the volume has a ground truth."""
        if self.config.volumes[wildcards.volume].has_truth:
            return f"results/{wildcards.volume}/{wildcards.network}/matches.csv"
        return []

    def methods(self, wildcards: Wildcards) -> list[str]:
        """Names of all methods on one volume."""
        return methods_of(self.config, wildcards.volume)

    def of_volume(self, wildcards: Wildcards) -> list[str]:
        """Evaluations of all methods on one volume."""
        folder = f"results/{wildcards.volume}"
        return [f"{folder}/{method}/evaluation.json" for method in self.methods(wildcards)]


def methods_of(config: Config, volume: str) -> list[str]:
    """What finds cells in a volume: its networks, and the baseline where asked for."""
    baseline = config.settings["evaluation"]["baseline"] and config.volumes[volume].has_truth
    return [*config.volumes[volume].networks, *(["baseline"] if baseline else [])]
