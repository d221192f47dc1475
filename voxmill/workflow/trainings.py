"""Inputs and params of trainings."""

from dataclasses import dataclass

from voxmill.workflow.configuration import Config
from voxmill.workflow.wildcards import Mark, Wildcards


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

    def volumes(self, wildcards: Wildcards) -> dict:
        """Volumes that a network is trained on and validated with, by name."""
        return self._section(wildcards)["volumes"]

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

    def settings(self, wildcards: Wildcards) -> dict:
        """Settings of a training."""
        return self._section(wildcards).get("settings", {})

    def _section(self, wildcards: Wildcards) -> dict:
        return self.config.settings["training"][wildcards.trained]
