"""Inputs and params of trainings."""

from dataclasses import dataclass

from voxmill.workflow.configuration import Config
from voxmill.workflow.wildcards import Mark, Settings, Wildcards


@dataclass(frozen=True)
class Trainings:
    """What rules ask about the trainings of a configuration.

    Parameters
    ----------
    config : Config
    ancient : callable
        Marks an input whose date reruns nothing.
    """

    config: Config
    ancient: Mark

    def volumes(self, wildcards: Wildcards) -> Settings:
        """Volumes that a network is trained on and validated with, by name."""
        volumes: Settings = self._section(wildcards)["volumes"]
        return volumes

    def files(self, wildcards: Wildcards) -> list[str]:
        """Volumes, ground truths and masks; touching one retrains nothing by itself."""
        volumes = self.volumes(wildcards).values()
        paths = [
            *(volume["path"] for volume in volumes),
            *(volume["truth"]["path"] for volume in volumes),
            *(volume["mask"] for volume in volumes if volume.get("mask")),
        ]
        return [self.ancient(path) for path in paths]

    def start(self, wildcards: Wildcards) -> str | list[str]:
        """Weights that a training starts from, where it does."""
        return self._section(wildcards).get("start") or []

    def settings(self, wildcards: Wildcards) -> Settings:
        """Settings of a training."""
        settings: Settings = self._section(wildcards).get("settings", {})
        return settings

    def _section(self, wildcards: Wildcards) -> Settings:
        section: Settings = self.config.settings["training"][wildcards.trained]
        return section
