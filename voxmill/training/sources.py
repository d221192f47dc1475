"""Volumes with their ground truth, and patches drawn from them."""

from dataclasses import dataclass

import numpy as np

from voxmill.config.training import TrainingSettings
from voxmill.geometry import Box
from voxmill.runtime.errors import VoxmillError
from voxmill.training.targets import centroid_target
from voxmill.volumes.normalisation import normalise
from voxmill.volumes.protocols import ReadableVolume

# Draws of a patch before a volume counts as having no room beside its validation box.
MOST_DRAWS = 1000


@dataclass(frozen=True)
class Source:
    """A volume with its cells.

    Parameters
    ----------
    name : str
    volume : ReadableVolume
        Grey values.
    points : (N, 3) float array
        Centroids, absolute voxels.
    voxel_size_um : (3,) tuple of float
    statistics : dict
        See `voxmill.volumes.measure_volume.measure`: of the whole volume, so that all its patches
        agree.
    region : Box
        Where the ground truth is complete; nothing outside of it is used.
    validation : Box, optional
        Kept out of the training and used to validate. If it is the whole region, nothing of the
        volume is trained on.
    mask : ReadableVolume, optional
        Nonzero where a cell is.
    contents : str
        Digest of what volume and mask hold, so that a checkpoint of other contents is refused.
    """

    name: str
    volume: ReadableVolume
    points: np.ndarray
    voxel_size_um: tuple[float, float, float]
    statistics: dict
    region: Box
    validation: Box | None = None
    mask: ReadableVolume | None = None
    contents: str = ""

    @property
    def trains(self) -> bool:
        """Whether anything is left to train on."""
        return self.validation != self.region


def points_in(points: np.ndarray, box: Box) -> np.ndarray:
    """The points whose nearest voxel lies in a box."""
    return points[box.contains(points)]


def check_sources(sources: list[Source], settings: TrainingSettings) -> None:
    """Refuse what can't be trained on, before the first step.

    Raises
    ------
    VoxmillError
        Without training or validation data, without cells in either, with points outside of their
        volume, a region smaller than a patch, voxel sizes that differ, or a missing mask.
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
                f"training: expected cells in the {kind} data, found none. Check the truth of "
                f"{[s.name for s in sources]}."
            )


def _check_source(source: Source, settings: TrainingSettings, size, first: str) -> None:
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
            f"{where}: expected all {len(source.points)} cells inside of the volume of shape "
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
            f"{where}: training.{key} needs a mask or labels as truth, found points alone."
        )


def training_points(source: Source) -> np.ndarray:
    """Cells in the region and outside of the validation box."""
    points = points_in(source.points, source.region)
    if source.validation is None:
        return points
    return points[~source.validation.contains(points)]


class PatchSampler:
    """Draws patches: a share of them on cells, the rest anywhere.

    Parameters
    ----------
    sources : list of Source
        Those that train; each is drawn as often as its number of cells (at least as if it had a
        tenth of the mean).
    settings : TrainingSettings
    """

    def __init__(self, sources: list[Source], settings: TrainingSettings):
        self._sources = [s for s in sources if s.trains]
        self._points = [training_points(s) for s in self._sources]
        self._settings = settings
        counts = np.array([len(p) for p in self._points], dtype=float)
        counts = np.maximum(counts, 0.1 * counts.mean())
        self._shares = counts / counts.sum()

    def draw(self, rng) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
        """A patch, its maps and its voxel size.

        Returns
        -------
        patch : (z, y, x) float32 array
            Normalised intensities.
        maps : (1 + outputs, z, y, x) float32 array
            First 1 where the loss counts, else 0; then the targets.
        voxel_size_um : (3,) tuple of float
        """
        index = int(rng.choice(len(self._sources), p=self._shares))
        source = self._sources[index]
        start = self._place(source, self._points[index], rng)
        stop = start + self._settings.patch_vox
        grey = source.volume.read_window(tuple(start.tolist()), tuple(stop.tolist()))
        patch = normalise(grey, source.statistics, self._settings.normalisation)
        maps = [self._counts(source, start, stop)]
        if self._settings.target == "centroid":
            maps.append(
                centroid_target(
                    source.points,
                    start,
                    self._settings.patch_vox,
                    source.voxel_size_um,
                    self._settings.target_sigma_um,
                )
            )
        if self._settings.needs_mask:
            mask = source.mask.read_window(tuple(start.tolist()), tuple(stop.tolist()))
            maps += [(mask > 0).astype(np.float32)] * (self._settings.outputs + 1 - len(maps))
        return patch, np.stack(maps), source.voxel_size_um

    def _place(self, source: Source, points, rng) -> np.ndarray:
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

    def _counts(self, source: Source, start, stop) -> np.ndarray:
        """1 where the network sees enough surroundings for the loss to count."""
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
