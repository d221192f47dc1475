"""A volume of the configuration, with what its header says; no pixel is read."""

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from voxmill.config.base import TripleUm
from voxmill.geometry import Box, Resampling, Triple, VoxelSize
from voxmill.networks.models import ModelCard
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import sha256, update_with_pieces
from voxmill.runtime.paths import advice
from voxmill.volumes import LABEL_DTYPES, VolumeHeader, fingerprint, read_header
from voxmill.volumes.plausible import check_mask, read_configured
from voxmill.workflow import voxel_sizes

# A ground truth up to this size is digested as a whole; of a larger one the date counts too.
_WHOLE_BYTES = 1 << 28


@dataclass(frozen=True)
class Volume:
    """A volume of the configuration, with what its header says.

    Parameters
    ----------
    name : str
    shape : (3,) int
        Voxels, z, y, x, as the volume is read and cut into tiles.
    voxel_size_um : (3,) float
        Of these voxels.
    itemsize : int
        Bytes a voxel.
    fingerprint : str
        Of the content (a phantom's: of its settings).
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
    truth_fingerprint : str
        Of the content of the user's ground truth; "" where there is none.
    own_shape, own_voxel_size_um : (3,) int and (3,) float, or None
        Of the file, where the volume is resampled on reading.
    """

    name: str
    shape: Triple
    voxel_size_um: tuple[float, float, float]
    itemsize: int
    fingerprint: str
    path: str | None
    settings: dict[str, Any]
    windows: bool
    networks: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    truth_fingerprint: str = ""
    own_shape: Triple | None = None
    own_voxel_size_um: tuple[float, float, float] | None = None

    @property
    def resampling(self) -> Resampling | None:
        """The file's voxels and those that the volume is read in, where these are others."""
        return Resampling.between(self.own_shape, self.own_voxel_size_um, self.voxel_size_um)

    @property
    def box(self) -> Box | None:
        """The part that a pilot is limited to, in the file's voxels; None for the whole."""
        text = self.settings.get("box")
        return Box.parse(text, self.own_shape or self.shape) if text else None

    @property
    def region(self) -> Box | None:
        """The part that is evaluated, in the file's voxels; None for the whole."""
        text, box = self.settings.get("region"), self.box
        region = Box.parse(text, self.own_shape or self.shape) if text else None
        return region.clip(box) if region and box else region or box

    @property
    def has_truth(self) -> bool:
        """Whether its cells can be evaluated."""
        return "truth" in self.settings or "phantom" in self.settings


def read_volume(
    name: str, settings: dict[str, Any], cards: dict[str, ModelCard], source: str
) -> Volume:
    """Read the header of a volume and check what the configuration says about it.

    Parameters
    ----------
    name : str
    settings : dict
        The whole configuration, defaults filled in.
    cards : dict of str to ModelCard
        Of all networks.
    source : str
        What errors call the configuration.

    Raises
    ------
    VoxmillError
        Names the key, what was expected, what was found and what to do.
    """
    volume = _in_own_voxels(name, settings, source)
    own_um = VoxelSize.of(volume.voxel_size_um)
    wanting = {network: cards[network] for network in volume.networks}
    key = f"{source}: volumes.{name}"
    target = voxel_sizes.reading_size(key, volume.settings, own_um, wanting)
    if target is None:
        return volume
    grid = Resampling(volume.shape, own_um, target)
    z, y, x = target
    return dataclasses.replace(
        volume, shape=grid.shape, voxel_size_um=(z, y, x),
        own_shape=volume.shape, own_voxel_size_um=volume.voxel_size_um,
    )  # fmt: skip


def _in_own_voxels(name: str, settings: dict[str, Any], source: str) -> Volume:
    section = settings["volumes"][name]
    networks = tuple(section.get("networks", settings["networks"]))
    if "phantom" in section:
        phantom = section["phantom"]
        shape, size = tuple(phantom["shape_vox"]), tuple(phantom["voxel_size_um"])
        identity = f"phantom {sorted(phantom.items())}"
        _check_boxes(name, section, shape, source)
        return Volume(name, shape, size, 2, identity, None, section, True, networks)
    with naming(f"{source}: volumes.{name}.path"):
        header, warnings = read_configured(section)
        mark = fingerprint(header)
    voxel_size_um = _check_frame(name, section, header, source)
    itemsize = np.dtype(header.dtype).itemsize
    truth_mark = ""
    if "truth" in section:
        with naming(f"{source}: volumes.{name}.truth.path"):
            truth_mark = _truth_fingerprint(section["truth"]["path"])
    return Volume(
        name, header.shape, voxel_size_um, itemsize, mark, section["path"],
        section, header.windows, networks,
        tuple(f"{source}: volumes.{name}: {warning}" for warning in warnings),
        truth_mark,
    )  # fmt: skip


def _truth_fingerprint(path: str) -> str:
    """A digest that changes with a ground truth's content; tables are read as a whole for it."""
    if Path(path).is_dir():
        return fingerprint(read_header(path, dtypes=LABEL_DTYPES))
    if Path(path).stat().st_size <= _WHOLE_BYTES:
        return sha256(path)
    digest = hashlib.sha256(str(Path(path).stat().st_mtime_ns).encode())
    update_with_pieces(digest, path, samples=16, sample_bytes=1 << 16)
    return digest.hexdigest()


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
        with naming(f"{source}: volumes.{name}.tissue"):
            check_mask(read_header(tissue, dtypes=LABEL_DTYPES).shape, header.shape, tissue)
    _check_boxes(name, section, header.shape, source)
    return header.voxel_size_um


def _check_boxes(name: str, section: dict[str, Any], shape: Triple, source: str) -> None:
    """Refuse a region or a box that is no part of the volume, and two that do not overlap."""
    boxes = {}
    for key in ("region", "box"):
        if key in section:
            with naming(f"{source}: volumes.{name}.{key}"):
                boxes[key] = Box.parse(section[key], shape)
    if len(boxes) == 2 and not boxes["region"].overlaps(boxes["box"]):
        raise VoxmillError(
            f"{source}: volumes.{name}.region: expected a part of the box {boxes['box']}, to which "
            f"the run is limited, found {boxes['region']}: they have no voxel in common. Change or "
            "leave out one of the two."
        )


class naming:
    """Put the configuration's key before the message of an error about a file."""

    def __init__(self, key: str):
        self.key = key

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, VoxmillError):
            raise VoxmillError(f"{self.key}: {error}") from None
