"""Volumes with their ground truth, and patches drawn from them."""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from voxmill.config.training import TrainingSettings
from voxmill.geometry import Box
from voxmill.runtime.errors import VoxmillError
from voxmill.training.targets import centroid_target
from voxmill.volumes.normalisation import normalise
from voxmill.volumes.plausible import read_configured
from voxmill.volumes.protocols import ReadableVolume
from voxmill.volumes.sources import check_files, check_source

# After this many draws of a patch, a volume counts as too small beside its validation box.
MOST_DRAWS = 1000


@dataclass(frozen=True)
class Source:
    """A volume with its cells, for training, validation or both.

    Parameters
    ----------
    name : str
    volume : ReadableVolume
        Grey values.
    points : (N, 3) float array
        Centroids in absolute voxels.
    voxel_size_um : (3,) tuple of float
    statistics : dict
        Those of `voxmill.volumes.measure_volume.measure` for the whole volume, so that all patches
        are normalised alike.
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
    statistics: dict[str, Any]
    region: Box
    validation: Box | None = None
    mask: ReadableVolume | None = None
    contents: str = ""

    @property
    def trains(self) -> bool:
        """Whether the volume has a part to train on."""
        return self.validation != self.region


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
    if settings.needs_mask and source.mask is None:
        key = "foreground" if settings.foreground else "target"
        raise VoxmillError(
            f"{where}: training.{key} needs a mask or labels as truth, found only points."
        )


def training_points(source: Source) -> np.ndarray:
    """Select the cells in the region and outside the validation box: (N, 3) voxels."""
    points = points_in(source.points, source.region)
    if source.validation is None:
        return points
    return points[~source.validation.contains(points)]


class PatchSampler:
    """Draws patches: a share of them on cells, the others anywhere in the regions.

    Parameters
    ----------
    sources : list of Source
        Those that train are used, each in proportion to its number of cells, but at least as if
        it had a tenth of the mean.
    settings : TrainingSettings
    """

    def __init__(self, sources: list[Source], settings: TrainingSettings):
        self._sources = [s for s in sources if s.trains]
        self._points = [training_points(s) for s in self._sources]
        self._settings = settings
        counts = np.array([len(p) for p in self._points], dtype=float)
        counts = np.maximum(counts, 0.1 * counts.mean())
        self._shares = counts / counts.sum()

    def draw(
        self, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
        """Draw a patch.

        Returns
        -------
        patch : (z, y, x) float32 array
            Normalised intensities.
        targets : (1 + outputs, z, y, x) float32 array
            The first channel is 1 where the loss counts, else 0; the others are the targets of
            the network's outputs.
        voxel_size_um : (3,) tuple of float
        """
        index = int(rng.choice(len(self._sources), p=self._shares))
        source = self._sources[index]
        start = self._place(source, self._points[index], rng)
        stop = start + self._settings.patch_vox
        box = Box.from_shape(self._settings.patch_vox, start.tolist())
        grey = source.volume.read_window(*box)
        patch = normalise(grey, source.statistics, self._settings.normalisation)
        targets = [self._counts(source, start, stop)]
        if self._settings.target == "centroid":
            targets.append(
                centroid_target(
                    source.points,
                    start,
                    self._settings.patch_vox,
                    source.voxel_size_um,
                    cast(float, self._settings.target_sigma_um),
                )
            )
        if self._settings.needs_mask and source.mask is not None:
            mask = source.mask.read_window(*box)
            missing = self._settings.outputs + 1 - len(targets)
            targets += [(mask > 0).astype(np.float32)] * missing
        return patch, np.stack(targets), source.voxel_size_um

    def _place(self, source: Source, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw the first voxel of a patch."""
        patch = np.array(self._settings.patch_vox)
        low, high = np.array(source.region.start), np.array(source.region.stop) - patch
        for _ in range(MOST_DRAWS):
            if len(points) and rng.random() < self._settings.cell_share:
                cell = points[rng.integers(len(points))]
                start = np.floor(cell - rng.uniform(0.1, 0.9, 3) * patch).astype(int)
                start = np.clip(start, low, high)
            else:
                start = rng.integers(low, high + 1)
            if source.validation is None:
                return start
            if not Box.from_shape(self._settings.patch_vox, start).overlaps(source.validation):
                return start
        raise VoxmillError(
            f"training volume {source.name!r}: expected room for patches of {patch.tolist()} "
            f"voxels beside the validation box {source.validation}, found none in "
            f"{MOST_DRAWS} draws. Make training.patch_vox or the box smaller."
        )

    def _counts(self, source: Source, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """Return 1 where the patch has enough surroundings for the loss to count, else 0."""
        counts = np.zeros(self._settings.patch_vox, np.float32)
        margin = self._settings.margin_vox
        inner = tuple(
            slice(0 if a == 0 else margin, n if b == end else n - margin)
            for a, b, n, end in zip(
                start, stop, self._settings.patch_vox, source.volume.shape, strict=True
            )
        )
        counts[inner] = 1
        return counts


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
