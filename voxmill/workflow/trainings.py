"""Inputs and params of trainings."""

from dataclasses import dataclass

from voxmill.volumes import fingerprint
from voxmill.volumes.fingerprints import path_fingerprint
from voxmill.volumes.plausible import read_configured
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
        return [self.ancient(path) for path in self._paths(wildcards)]

    def fingerprints(self, wildcards: Wildcards) -> Settings:
        """Fingerprints of the content of volumes, ground truths and masks, by path."""
        volumes = self.volumes(wildcards).values()
        read = {volume["path"]: fingerprint(read_configured(volume)[0]) for volume in volumes}
        start = self.start(wildcards)
        others = [*self._paths(wildcards), *([start] if isinstance(start, str) else [])]
        return read | {path: path_fingerprint(path) for path in others if path not in read}

    def _paths(self, wildcards: Wildcards) -> list[str]:
        volumes = self.volumes(wildcards).values()
        return [
            *(volume["path"] for volume in volumes),
            *(volume["truth"]["path"] for volume in volumes),
            *(volume["mask"] for volume in volumes if volume.get("mask")),
        ]

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
