"""Volumes with their ground truth, for training and validation."""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from voxmill.config.normalisation import PERCENTILES
from voxmill.config.training import TrainingSettings
from voxmill.geometry import Box
from voxmill.runtime.errors import VoxmillError
from voxmill.training.targets import balanced_weight
from voxmill.volumes.blocks import ArrayVolume
from voxmill.volumes.grey_blocks import measure_blocks
from voxmill.volumes.grey_values import GreyValues
from voxmill.volumes.plausible import read_configured
from voxmill.volumes.protocols import ReadableVolume
from voxmill.volumes.sources import check_files, check_source
from voxmill.volumes.tissue import Tissue

# Masks fill some percent of a patch: a larger weight would shift their borders outwards.
MASK_WEIGHT = 3.0


@dataclass(frozen=True)
class Source:
    """A volume with its cells, or a region of one, for training, validation or both.

    A volume whose ground truth is complete in several regions is several sources that share the
    volume.

    Parameters
    ----------
    name : str
    volume : ReadableVolume
        Grey values.
    points : (N, 3) float array
        Centroids in absolute voxels.
    voxel_size_um : (3,) tuple of float
    grey : GreyValues
        Those of the whole volume, so that all patches are normalised as a prediction is.
    region : Box
        Where the ground truth is complete; nothing outside is used.
    validation : Box, optional
        Left out of the training and used to validate. If it is the whole region, the volume does
        not train.
    mask : ReadableVolume, optional
        Nonzero where a cell is.
    contents : str
        Digest of volume and mask, so that a checkpoint of other data is refused.
    """

    name: str
    volume: ReadableVolume
    points: np.ndarray
    voxel_size_um: tuple[float, float, float]
    grey: GreyValues
    region: Box
    validation: Box | None = None
    mask: ReadableVolume | None = None
    contents: str = ""

    @property
    def trains(self) -> bool:
        """Whether the volume has a part to train on."""
        return self.validation != self.region


def grey_of(
    array: np.ndarray, voxel_size_um: tuple[float, float, float] | None = None
) -> GreyValues:
    """Grey values of a volume in memory, all of which counts as tissue.

    Parameters
    ----------
    array : (z, y, x) array
    voxel_size_um : (3,) float, optional
    """
    blocks = measure_blocks(ArrayVolume(array), voxel_size_um)
    values = np.percentile(array, PERCENTILES)
    statistics = {
        "percentiles": {f"{p:g}": float(v) for p, v in zip(PERCENTILES, values, strict=True)}
    }
    tissue = Tissue(blocks.shape, blocks.edge_vox, np.ones(blocks.levels.shape[1:], bool))
    return GreyValues(statistics, blocks, tissue)


def points_in(points: np.ndarray, box: Box) -> np.ndarray:
    """Select the points whose voxel lies in a box."""
    return points[box.contains(points)]


def check_sources(sources: list[Source], settings: TrainingSettings) -> None:
    """Check before the first step that the data can be trained on.

    Parameters
    ----------
    sources : list of Source
    settings : TrainingSettings

    Raises
    ------
    VoxmillError
        If training or validation data are missing or have no cells, points lie outside their
        volume, a region is smaller than a patch, voxel sizes differ, or a mask is missing.
    """
    for kind, chosen in (
        ("training", [s for s in sources if s.trains]),
        ("validation", [s for s in sources if s.validation]),
    ):
        if not chosen:
            raise VoxmillError(
                f"training: expected at least one volume or region for {kind}, found none among "
                f"{[s.name for s in sources]}. Set `validation` of one volume to true, or to a box."
            )
    size = sources[0].voxel_size_um
    for source in sources:
        _check_source(source, settings, size, sources[0].name)
    for kind, count in (
        ("training", sum(len(training_points(s)) for s in sources if s.trains)),
        (
            "validation",
            sum(len(points_in(s.points, s.validation)) for s in sources if s.validation),
        ),
    ):
        if not count:
            raise VoxmillError(
                f"training: expected cells in the {kind} data, found none. Check the ground truth "
                f"of {[s.name for s in sources]}."
            )


def _check_source(
    source: Source, settings: TrainingSettings, size: tuple[float, float, float], first: str
) -> None:
    where = f"training volume {source.name!r}"
    if not np.allclose(source.voxel_size_um, size, rtol=0.02):
        raise VoxmillError(
            f"{where}: expected voxels of {list(size)} um as in {first!r}, found "
            f"{list(source.voxel_size_um)}. A network learns sizes in voxels: resample one of the "
            "volumes, or train a network for each voxel size."
        )
    inside = points_in(source.points, Box.from_shape(source.volume.shape))
    if len(inside) < len(source.points):
        raise VoxmillError(
            f"{where}: expected all {len(source.points)} cells inside the volume of shape "
            f"{list(source.volume.shape)}, found {len(source.points) - len(inside)} outside. "
            "Check the axis order (z, y, x) and the unit of the ground truth."
        )
    if source.trains and (np.array(source.region.shape) < settings.patch_vox).any():
        raise VoxmillError(
            f"{where}: expected a region of at least a patch, {list(settings.patch_vox)} voxels, "
            f"found {list(source.region.shape)}. Make training.patch_vox smaller."
        )
    if settings.outlines and source.mask is None:
        key = "foreground" if settings.foreground else "touching"
        raise VoxmillError(
            f"{where}: training.{key} needs a mask or labels as truth, found only points."
        )


def training_points(source: Source) -> np.ndarray:
    """Select the cells in the region and outside the validation box: (N, 3) voxels."""
    points = points_in(source.points, source.region)
    if source.validation is None:
        return points
    return points[~source.validation.contains(points)]


def default_weight(sources: list[Source], settings: TrainingSettings) -> float:
    """Weight of cells in the loss where `TrainingSettings.positive_weight` gives none."""
    if settings.target == "mask":
        return MASK_WEIGHT
    number, volume = 0, 0.0
    for source in (s for s in sources if s.trains):
        number += len(training_points(source))
        volume += float(np.prod(np.array(source.region.shape) * source.voxel_size_um))
    return balanced_weight(number, volume, cast(float, settings.target_sigma_um))


def check_planned(volumes: dict[str, Any], planned: dict[str, str] | None) -> None:
    """Refuse volumes, ground truths and masks that are not those that a run was planned with.

    Parameters
    ----------
    volumes : dict of str to dict
        Training volumes of the configuration.
    planned : dict of str to str or None
        Fingerprint of each file by its path; None checks nothing.

    Raises
    ------
    VoxmillError
        Names the first file whose content is another now.
    """
    if planned is None:
        return
    for volume in volumes.values():
        for path in (volume["truth"]["path"], volume.get("mask")):
            check_files([path], [planned[path]] if path else [])
        check_source(read_configured(volume)[0], planned[volume["path"]])
