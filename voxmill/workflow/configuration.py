"""The configuration, checked once while the Snakefile is parsed: no pixel read, no torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from voxmill.config.base import TripleUm
from voxmill.config.settings import check
from voxmill.geometry import Box, Triple
from voxmill.networks.models import ModelCard, read_card
from voxmill.runtime.digests import source_digest
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import sha256
from voxmill.runtime.paths import advice
from voxmill.tiles.batches import Batches, tiles_per_cut, tiles_per_job
from voxmill.tiles.grid import Grid
from voxmill.volumes import LABEL_DTYPES, VolumeHeader, fingerprint, read_header
from voxmill.volumes.fingerprints import path_fingerprint
from voxmill.volumes.plausible import check_mask, read_configured
from voxmill.volumes.pyramid import Level, pyramid_levels

_MOST_TILES = 1_000_000


@dataclass(frozen=True)
class Volume:
    """A volume of the configuration, with what its header says.

    Parameters
    ----------
    name : str
    shape : (3,) int
        Voxels, z, y, x.
    voxel_size_um : (3,) float
    itemsize : int
        Bytes a voxel.
    made_from : str
        A phantom's settings; "" for a file.
    path : str or None
        The user's file; None for a phantom.
    settings : dict
        The section of the configuration.
    windows : bool
        Whether windows can be read; otherwise the file is unpacked first.
    networks : tuple of str
        Names of the networks to run on it.
    warnings : tuple of str
        What is doubtful about it.
    header : VolumeHeader or None
        Of the user's file; None for a phantom.
    """

    name: str
    shape: Triple
    voxel_size_um: tuple[float, float, float]
    itemsize: int
    made_from: str
    path: str | None
    settings: dict[str, Any]
    windows: bool
    networks: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    header: VolumeHeader | None = None

    # Only when a rule asks: each job parses the Snakefile, and few need these.
    @cached_property
    def fingerprint(self) -> str:
        """Of the content (a phantom's: of its settings); see `voxmill.volumes.fingerprints`."""
        return fingerprint(self.header) if self.header else self.made_from

    @cached_property
    def truth_fingerprint(self) -> str:
        """Of the content of the user's ground truth; "" where there is none."""
        if self.path is None or "truth" not in self.settings:
            return ""
        return path_fingerprint(self.settings["truth"]["path"])

    @property
    def has_truth(self) -> bool:
        """Whether its cells can be evaluated."""
        return "truth" in self.settings or "phantom" in self.settings


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
        """What is doubtful about the volumes."""
        return [warning for volume in self.volumes.values() for warning in volume.warnings]

    def grid(self, volume: str) -> Grid:
        """The cores of a volume's tiles."""
        return self._grids[volume]

    def tiles(self, volume: str) -> tuple[str, ...]:
        """Names of a volume's tiles, z slowest."""
        return self.grid(volume).names

    def slabs(self, volume: str) -> list[str]:
        """Names of a volume's slabs of tiles."""
        return self.grid(volume).slabs

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
        return {name: Grid(volume.shape, shape) for name, volume in self.volumes.items()}

    def levels(self, volume: str) -> list[Level]:
        """Levels of the pyramid of a volume's predictions."""
        section = self.volumes[volume]
        return pyramid_levels(section.shape, section.voxel_size_um)

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
        detector, the configuration's, with maxima. What the network's section or the volume's says
        of its own wins over all.
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
        if detector := self.cards[network].detector:
            own.pop("method", None)
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
        with _naming(f"{source}: networks.{name}.weights"):
            cards[name] = read_card(network["weights"])
    volumes = {name: _volume(name, settings, source) for name in settings["volumes"]}
    for name, volume in volumes.items():
        _check_number_of_tiles(name, volume.shape, settings["tiles"]["shape_vox"], source)
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


def _check_number_of_tiles(
    name: str, shape: Triple, tile_shape: Sequence[int], source: str
) -> None:
    number = math.prod(-(-edge // core) for edge, core in zip(shape, tile_shape, strict=True))
    if number > _MOST_TILES:
        raise VoxmillError(
            f"{source}: tiles.shape_vox: {list(tile_shape)} makes {number} tiles of volume {name}, "
            f"whose shape is {list(shape)}: expected at most {_MOST_TILES}, as each is a job. Give "
            "larger tiles."
        )


def _volume(name: str, settings: dict[str, Any], source: str) -> Volume:
    section = settings["volumes"][name]
    networks = tuple(section.get("networks", settings["networks"]))
    if "phantom" in section:
        phantom = section["phantom"]
        shape, size = tuple(phantom["shape_vox"]), tuple(phantom["voxel_size_um"])
        # Tiles of a volume that voxmill made are kept as long as it would make the same again.
        code = source_digest("voxmill.phantoms.make_phantom")
        identity = f"phantom {sorted(phantom.items())} {code}"
        return Volume(name, shape, size, 2, identity, None, section, True, networks)
    with _naming(f"{source}: volumes.{name}.path"):
        header, warnings = read_configured(section)
    voxel_size_um = _check_frame(name, section, header, source)
    itemsize = np.dtype(header.dtype).itemsize
    if "truth" in section and Path(section["truth"]["path"]).is_dir():
        with _naming(f"{source}: volumes.{name}.truth.path"):
            read_header(section["truth"]["path"], dtypes=LABEL_DTYPES)
    return Volume(
        name, header.shape, voxel_size_um, itemsize, "", section["path"],
        section, header.windows, networks,
        tuple(f"{source}: volumes.{name}: {warning}" for warning in warnings),
        header,
    )  # fmt: skip


def _check_frame(name: str, section: dict[str, Any], header: VolumeHeader, source: str) -> TripleUm:
    """Refuse what only the header tells; returns the voxel size."""
    if header.voxel_size_um is None:
        raise VoxmillError(
            f"{source}: volumes.{name}.voxel_size_um: the header of {section['path']} tells no "
            f"voxel size ({header.voxel_size_source}); give it in micrometres as [z, y, x]."
        )
    if "truth" in section and not Path(section["truth"]["path"]).exists():
        raise VoxmillError(
            f"{source}: volumes.{name}.truth.path: {section['truth']['path']} does not exist. "
            f"{advice(section['truth']['path'])} Or leave the truth out."
        )
    if (tissue := section.get("tissue", "auto")) not in ("auto", "none"):
        with _naming(f"{source}: volumes.{name}.tissue"):
            check_mask(read_header(tissue, dtypes=LABEL_DTYPES).shape, header.shape, tissue)
    if "region" in section:
        with _naming(f"{source}: volumes.{name}.region"):
            Box.parse(section["region"], header.shape)
    return header.voxel_size_um


class _naming:
    """Put the configuration's key before the message of an error about a file."""

    def __init__(self, key: str):
        self.key = key

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, VoxmillError):
            raise VoxmillError(f"{self.key}: {error}") from None
