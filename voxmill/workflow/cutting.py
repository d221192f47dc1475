"""Outputs, inputs and params of the cutting into tiles."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from voxmill.tiles.batches import Batches
from voxmill.workflow.configuration import Config
from voxmill.workflow.volumes import Volumes
from voxmill.workflow.wildcards import Settings, Wildcards

_MANIFEST = "results/{volume}/batches/{batch}.json"
ASSUMED_HALO_VOX = (32, 32, 32)
"""For forecasts before a halo is measured; it is seldom larger."""
_TEMPORARY = "results/{volume}/cut/{batch}"


@dataclass(frozen=True)
class Cutting:
    """What rules ask about the tiles that are cut, by how long they are kept.

    Parameters
    ----------
    config : Config
    volumes : Volumes
    temporary : callable
        Marks a folder that is removed when no job needs it any more: Snakemake's `temp` and
        `directory`.
    """

    config: Config
    volumes: Volumes
    temporary: Callable[[str], Any]

    @property
    def keep(self) -> str:
        """The setting `tiles.keep`: all, until-predicted or none."""
        keep: str = self.config.settings["tiles"]["keep"]
        return keep

    @property
    def output(self) -> Any:
        """What a job that cuts tiles makes: their manifest, or a folder that is removed later.

        The tiles themselves are no outputs: with 100,000 of them Snakemake would need hours, and it
        would remove those that are whole when a job fails.
        """
        return self.temporary(_TEMPORARY) if self.keep == "until-predicted" else _MANIFEST

    def folder(self, wildcards: Wildcards) -> str:
        """Where the tiles of a job are written."""
        if self.keep == "until-predicted":
            # Until all of them are whole.
            return f"results/{wildcards.volume}/cut/.{wildcards.batch}"
        return f"results/{wildcards.volume}/tiles"

    def tiles(self, wildcards: Wildcards) -> list[str]:
        """Names of the tiles that one job cuts."""
        return list(self._cuts(wildcards).tiles(wildcards.batch))

    def of_batch(self, wildcards: Wildcards) -> str:
        """What a prediction of several tiles waits for."""
        return self._needed(wildcards, wildcards.batch)

    def of_tile(self, wildcards: Wildcards) -> str:
        """What the prediction of one tile waits for."""
        return self._needed(wildcards, wildcards.tile)

    def source(self, wildcards: Wildcards, input: Any) -> Settings:
        """Where a prediction reads its tiles from; see `voxmill.tiles.tile_source`.

        It takes the input, so that Snakemake does not compare it with that of the last run.
        """
        if self.keep == "none":
            return {"volume": self.volumes.arguments(wildcards)}
        if self.keep == "until-predicted":
            return {"folder": str(input.tiles)}
        return {"folder": f"results/{wildcards.volume}/tiles"}

    def forecast(self, wildcards: Wildcards, input: Any) -> Settings:
        """What the plan tells about the run, see `voxmill.tiles.forecast`; not compared either."""
        return wanted(self.config, wildcards.volume)

    def targets(self, volume: str) -> list[str]:
        """What says that all tiles of a volume are cut; nothing where they are not kept."""
        if self.keep != "all":
            return []
        return [_MANIFEST.format(volume=volume, batch=name) for name in self._of(volume).names]

    def _needed(self, wildcards: Wildcards, first: str) -> str:
        if self.keep == "none":
            return self.volumes.file(wildcards)
        batch = self._cuts(wildcards).of_tile(first)
        made = _TEMPORARY if self.keep == "until-predicted" else _MANIFEST
        return made.format(volume=wildcards.volume, batch=batch)

    def _cuts(self, wildcards: Wildcards) -> Batches:
        return self._of(wildcards.volume)

    def _of(self, volume: str) -> Batches:
        return self.config.cuts(volume)


def wanted(config: Config, volume: str) -> Settings:
    """What decides how many jobs and bytes a volume takes, see `voxmill.tiles.forecast`."""
    networks = config.volumes[volume].networks
    depth = config.tile_shape_vox[0]
    rows = sum(-(-level.shape[0] // depth) for level in config.levels(volume)[1:])
    return {
        "per_job": config.tiles_per_job(volume),
        "per_cut": config.cuts(volume).size,
        "keep": config.settings["tiles"]["keep"],
        "networks": {name: config.weights_sha256[name] for name in networks},
        "prediction": config.settings["prediction"],
        "stitching": {key: config.settings["stitching"][key] for key in ("dtype", "formats")},
        "check_jobs": len(config.grid(volume).slabs),
        "stitch_jobs": 1 + rows,
        "labels": {"formats": config.settings["segment"]["formats"]},
    }
