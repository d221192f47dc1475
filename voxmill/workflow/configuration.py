"""The configuration, checked once while the Snakefile is parsed: no pixel read, no torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from voxmill.config.settings import check
from voxmill.geometry import Box, Triple
from voxmill.networks.models import ModelCard, read_card
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import sha256
from voxmill.tiles.batches import Batches, tiles_per_cut, tiles_per_job
from voxmill.tiles.grid import Grid
from voxmill.volumes.pyramid import Level, pyramid_levels
from voxmill.workflow import voxel_sizes
from voxmill.workflow.configured_volume import Volume, naming, read_volume

_MOST_TILES = 1_000_000


@dataclass(frozen=True)
class Config:
    """The checked configuration.

    Parameters
    ----------
    settings : dict
        The whole, defaults filled in.
    volumes : dict of str to Volume
    cards : dict of str to ModelCard
        The model card of each network.
    tile_shape_vox : (3,) int
        Largest core of a tile, voxels, z, y, x.
    weights_sha256 : dict of str to str
        Digest of each network's weights file.
    """

    settings: dict[str, Any]
    volumes: dict[str, Volume]
    cards: dict[str, ModelCard]
    tile_shape_vox: Triple
    weights_sha256: dict[str, str] = field(default_factory=dict)

    @property
    def warnings(self) -> list[str]:
        """What is doubtful about the volumes and networks."""
        used = {name: None for volume in self.volumes.values() for name in volume.networks}
        return [
            *(warning for volume in self.volumes.values() for warning in volume.warnings),
            *voxel_sizes.doubts(list(used), self.cards, "config"),
        ]

    def grid(self, volume: str) -> Grid:
        """The cores of a volume's tiles."""
        return self._grids[volume]

    def tiles(self, volume: str) -> tuple[str, ...]:
        """Names of a volume's tiles, z slowest."""
        return self.grid(volume).names

    @property
    def probability_storage(self) -> dict[str, Any]:
        """How probabilities are stored."""
        section = self.settings["stitching"]
        return {key: section[key] for key in ("dtype", "compression")}

    def tiles_per_job(self, volume: str) -> int:
        """How many tiles of a volume one prediction job predicts."""
        return tiles_per_job(len(self.grid(volume)), self.settings["tiles"]["per_job"])

    def batches(self, volume: str) -> Batches:
        """The tiles of each prediction job."""
        return Batches(self.grid(volume), self.tiles_per_job(volume))

    def cuts(self, volume: str) -> Batches:
        """The tiles of each job that cuts tiles."""
        grid = self.grid(volume)
        return Batches(grid, tiles_per_cut(len(grid), self.tiles_per_job(volume)))

    @cached_property
    def _grids(self) -> dict[str, Grid]:
        shape = self.tile_shape_vox
        return {
            name: Grid(volume.shape, shape, _part(volume, shape))
            for name, volume in self.volumes.items()
        }

    def levels(self, volume: str) -> list[Level]:
        """Levels of the pyramid of a volume's predictions."""
        section = self.volumes[volume]
        return pyramid_levels(section.shape, section.voxel_size_um)

    def part(self, volume: str) -> Box | None:
        """The cores that a pilot is limited to, in voxels of the tiles; None for the whole."""
        return _part(self.volumes[volume], self.tile_shape_vox)

    def halo_vox(self, volume: str) -> Triple | None:
        """The halo in voxels; None where it is measured."""
        halo = self.settings["tiles"]["halo_vox"]
        if halo == "auto":
            return None
        if halo == "exact":
            networks = self.volumes[volume].networks
            return (max(self.cards[name].receptive_radius_vox for name in networks),) * 3
        return (halo,) * 3 if isinstance(halo, int) else tuple(halo)

    def cell_settings(self, volume: str, network: str) -> dict[str, Any]:
        """Settings of the detector for a network's predictions of a volume.

        With method "model" those that the card's threshold was chosen with hold, and the detector's
        defaults for what the card leaves out, as when it was chosen. Where the card has no
        detector, the configuration's, with maxima. Distances of the card are scaled where the
        volume's cells have another diameter than the card's. What the network's section or the
        volume's says of its own wins over all.
        """
        own = {
            key: value
            for section in (self.settings["networks"][network], self.volumes[volume].settings)
            for key, value in section.get("cells", {}).items()
        }
        settings: dict[str, Any] = self.settings["cells"] | own
        if settings["threshold"] == "model":
            settings["threshold"] = self.cards[network].threshold
        if settings["method"] != "model":
            return settings
        card = self.cards[network]
        if card.detector:
            own.pop("method", None)
            diameter_um = self.volumes[volume].settings.get("cell_diameter_um")
            detector = voxel_sizes.scaled_detector(card.detector, card, diameter_um)
            return detector | own | {"threshold": settings["threshold"]}
        return settings | {"method": "maxima"}

    def max_distance_um(self, volume: str) -> float:
        """How far a found cell of a volume may be from a true one."""
        section = self.volumes[volume].settings
        distance: float = section.get(
            "max_distance_um", self.settings["evaluation"]["max_distance_um"]
        )
        return distance


def load(config: dict[str, Any], source: str = "config") -> Config:
    """Check a configuration: keys, values, volumes' headers, models' cards and weights' headers.

    Parameters
    ----------
    config : dict
        As Snakemake read it.
    source : str
        What errors call it.

    Raises
    ------
    VoxmillError
        Names the key or file, what was expected, what was found and what to do.
    """
    settings = check(config, source)
    cards = {}
    for name, network in settings["networks"].items():
        with naming(f"{source}: networks.{name}.weights"):
            cards[name] = read_card(network["weights"])
    volumes = {name: read_volume(name, settings, cards, source) for name in settings["volumes"]}
    for name, volume in volumes.items():
        if box := settings["export"].get("box"):
            with naming(f"{source}: export.box (volume {name})"):
                Box.parse(box, volume.own_shape or volume.shape)
        _check_number_of_tiles(name, volume, settings["tiles"]["shape_vox"], source)
    digests = {name: sha256(n["weights"]) for name, n in settings["networks"].items()}
    for name, card in cards.items():
        if digests[name] != card.weights_sha256:
            raise VoxmillError(
                f"{source}: networks.{name}.weights: the card beside "
                f"{settings['networks'][name]['weights']} was written for other weights; take "
                "the card and the weights of one model."
            )
    shape = tuple(settings["tiles"]["shape_vox"])
    return Config(settings, volumes, cards, shape, digests)


def _part(volume: Volume, tile_shape: Sequence[int]) -> Box | None:
    box, grid = volume.box, volume.resampling
    if box is None:
        return None
    seen = grid.covering(box) if grid else box
    return seen.aligned(tile_shape).clip(Box.from_shape(volume.shape))


def _check_number_of_tiles(
    name: str, volume: Volume, tile_shape: Sequence[int], source: str
) -> None:
    shape = (_part(volume, tile_shape) or Box.from_shape(volume.shape)).shape
    number = math.prod(-(-edge // core) for edge, core in zip(shape, tile_shape, strict=True))
    if number > _MOST_TILES:
        raise VoxmillError(
            f"{source}: tiles.shape_vox: {list(tile_shape)} makes {number} tiles of volume {name}, "
            f"whose shape is {list(volume.shape)}: expected at most {_MOST_TILES}, as each is a "
            "job. Give larger tiles."
        )
