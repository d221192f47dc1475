"""A volume of the configuration, with what its header says; no pixel is read."""

import dataclasses
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from voxmill.config.base import TripleUm
from voxmill.geometry import Box, Resampling, Triple, VoxelSize
from voxmill.networks.models import ModelCard
from voxmill.runtime.digests import source_digest
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.fetched import why_not_here
from voxmill.runtime.paths import advice
from voxmill.volumes import LABEL_DTYPES, VolumeHeader, fingerprint, read_header
from voxmill.volumes.fingerprints import path_fingerprint
from voxmill.volumes.plausible import check_mask, read_configured
from voxmill.workflow import voxel_sizes


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
    own_shape, own_voxel_size_um : (3,) int and (3,) float, or None
        Of the file, where the volume is resampled on reading.
    counted_um : (3,) float or None
        What a voxel counts as in the lengths of the models, where the diameter of the cells is
        told; see `voxmill.workflow.voxel_sizes.counted_size`.
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
    own_shape: Triple | None = None
    own_voxel_size_um: tuple[float, float, float] | None = None
    counted_um: tuple[float, float, float] | None = None

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
    counted_um = voxel_sizes.counted_size(key, volume.settings, target or own_um, wanting)
    volume = dataclasses.replace(volume, counted_um=counted_um)
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
        # Tiles of a volume that voxmill made are kept as long as it would make the same again.
        code = source_digest("voxmill.phantoms.make_phantom")
        identity = f"phantom {sorted(phantom.items())} {code}"
        _check_boxes(name, section, shape, source)
        return Volume(name, shape, size, 2, identity, None, section, True, networks)
    with naming(f"{source}: volumes.{name}.path"):
        header, warnings = read_configured(section)
    voxel_size_um = _check_frame(name, section, header, source)
    itemsize = np.dtype(header.dtype).itemsize
    if "truth" in section and Path(section["truth"]["path"]).is_dir():
        with naming(f"{source}: volumes.{name}.truth.path"):
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
    if "truth" in section:
        truth = section["truth"]["path"]
        with naming(f"{source}: volumes.{name}.truth.path"):
            if reason := why_not_here(truth):
                raise VoxmillError(f"{truth}: this ground truth can't be read: {reason}.")
            if os.path.samefile(truth, section["path"]):
                raise VoxmillError(f"{truth}: this is the volume itself. Give its ground truth.")
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
