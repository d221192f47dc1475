"""Patches drawn from the training volumes: which ones, and with which targets."""

from collections.abc import Sequence
from typing import cast

import numpy as np

from voxmill.config.training import TrainingSettings
from voxmill.geometry import Box, VoxelSize
from voxmill.networks.heads import MASKS
from voxmill.runtime.errors import VoxmillError
from voxmill.training.object_targets import TARGETS, objects_in
from voxmill.training.sources import Source, training_points
from voxmill.training.targets import ball_target, centroid_target
from voxmill.volumes.protocols import ReadableVolume

# After this many draws of a patch, a volume counts as too small beside its validation box.
MOST_DRAWS = 1000
# Most cells of a source whose brightness is read; they stand for the others.
MOST_MEASURED = 2000
# Volumes of so many voxels at most have their targets of objects computed once, as a whole.
MOST_KEPT = 2**23


def volume_shares(sources: Sequence[Source], counts: Sequence[int], balance: float) -> np.ndarray:
    """Share of the patches that each source gets.

    Parameters
    ----------
    sources : sequence of Source
        Those of one volume share its patches by their numbers of cells.
    counts : sequence of int
        Training cells of each.
    balance : float
        See `TrainingSettings.balance`.

    Returns
    -------
    (sources,) float array
        Sums to 1. A source without cells counts as if it had a tenth of the mean.
    """
    cells = np.asarray(counts, dtype=float)
    cells = np.maximum(cells, 0.1 * cells.mean())
    volumes = np.array([id(s.volume) for s in sources])
    totals = np.array([cells[volumes == v].sum() for v in volumes])
    shares = cells / totals * totals**balance
    return shares / shares.sum()


def even_in_brightness(values: np.ndarray) -> np.ndarray:
    """Probability to draw each cell so that every level of brightness is drawn alike.

    Levels are five equal steps of the logarithm from the 2nd to the 98th percentile; a level
    without cells is left out.

    Parameters
    ----------
    values : (N,) float array
        Brightness of N > 0 cells.

    Returns
    -------
    (N,) float array
        Sums to 1.
    """
    logs = np.log(np.maximum(values, 1e-3))
    low, high = np.percentile(logs, (2, 98))
    levels = np.clip((logs - low) / max(high - low, 1e-6) * 5, 0, 4.999).astype(int)
    shares = 1 / np.bincount(levels, minlength=5)[levels]
    return shares / shares.sum()


class PatchSampler:
    """Draws patches: a share of them on cells, one on mistakes, the others anywhere in the regions.

    Parameters
    ----------
    sources : list of Source
        Those that train are used.
    settings : TrainingSettings

    Attributes
    ----------
    sources : list of Source
        Those that train.
    """

    def __init__(self, sources: list[Source], settings: TrainingSettings):
        self.sources = [s for s in sources if s.trains]
        self._kept: dict[int, list[np.ndarray]] = {}
        self._mistakes = [np.zeros((0, 3)) for _ in self.sources]
        self._normalisers = [s.grey.normaliser(settings.normalisation) for s in self.sources]
        self._points = [training_points(s) for s in self.sources]
        self._settings = settings
        counts = [len(p) for p in self._points]
        self._shares = volume_shares(self.sources, counts, settings.balance)
        self._measured: list[tuple[np.ndarray, np.ndarray]] = []
        if settings.dim_share:
            self._measured = [self._by_brightness(index) for index in range(len(self.sources))]

    def use_mistakes(self, places: Sequence[Sequence[Sequence[float]]]) -> None:
        """Draw patches on mistakes from now on.

        Parameters
        ----------
        places : list of (K, 3) float lists
            Of each training source, in voxels (`voxmill.training.mistakes`); empty for none.
        """
        if places:
            self._mistakes = [np.array(of_source).reshape(-1, 3) for of_source in places]

    def _by_brightness(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Some cells of a source, and the probability to draw each; see `even_in_brightness`."""
        source, points = self.sources[index], self._points[index]
        if len(points) > MOST_MEASURED:
            rng = np.random.default_rng(self._settings.seed)
            points = points[np.sort(rng.choice(len(points), MOST_MEASURED, replace=False))]
        if not len(points):
            return points, np.zeros(0)
        whole = Box.from_shape(source.volume.shape)
        values = []
        for point in np.rint(points).astype(int).tolist():
            window = Box.from_shape((1, 1, 1), point).grow(1, within=whole)
            grey = source.volume.read_window(*window)
            values.append(float(self._normalisers[index](grey, window.start).max()))
        return points, even_in_brightness(np.array(values))

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
        index = int(rng.choice(len(self.sources), p=self._shares))
        source = self.sources[index]
        start = self._place(index, rng)
        stop = start + self._settings.patch_vox
        box = Box.from_shape(self._settings.patch_vox, start.tolist())
        grey = source.volume.read_window(*box)
        patch = self._normalisers[index](grey, box.start)
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
            targets += self._of_objects(source, box)
        elif self._settings.target == "mask":
            diameter = self._settings.cell_diameter_um
            mask, known = ball_target(
                source.points, start, box.shape, source.voxel_size_um, diameter
            )
            targets = [targets[0] * known, mask]
        return patch, np.stack(targets), source.voxel_size_um

    def _of_objects(self, source: Source, box: Box) -> list[np.ndarray]:
        """Targets of the masks and of what parts touching objects, in a box of a source."""
        whole = Box.from_shape(source.volume.shape)
        if whole.size <= MOST_KEPT:
            if (kept := self._kept.get(id(source.mask))) is None:
                kept = self._kept[id(source.mask)] = self._targets(source, whole)
            return [target[box.slices] for target in kept]
        diameter = self._settings.cell_diameter_um
        around = np.ceil(diameter / np.array(source.voxel_size_um)).astype(int).tolist()
        window = box.grow(around, within=whole)
        inner = box.relative_to(window.start).slices
        return [target[inner] for target in self._targets(source, window)]

    def _targets(self, source: Source, box: Box) -> list[np.ndarray]:
        """The same from the labels in the box alone."""
        labels = cast(ReadableVolume, source.mask).read_window(*box)
        size, diameter = VoxelSize.of(source.voxel_size_um), self._settings.cell_diameter_um
        targets = []
        for name in self._settings.output_names:
            if name in MASKS:
                targets.append((labels > 0).astype(np.float32))
            elif name in TARGETS:
                targets.append(TARGETS[name](objects_in(labels), size, diameter).astype(np.float32))
        return targets

    def _place(self, index: int, rng: np.random.Generator) -> np.ndarray:
        """Draw the first voxel of a patch of a source."""
        source, patch = self.sources[index], np.array(self._settings.patch_vox)
        low, high = np.array(source.region.start), np.array(source.region.stop) - patch
        for _ in range(MOST_DRAWS):
            place = self._target(index, rng)
            if place is None:
                start = rng.integers(low, high + 1)
            else:
                start = np.floor(place - rng.uniform(0.1, 0.9, 3) * patch).astype(int)
                start = np.clip(start, low, high)
            if source.validation is None:
                return start
            if not Box.from_shape(self._settings.patch_vox, start).overlaps(source.validation):
                return start
        raise VoxmillError(
            f"training volume {source.name!r}: expected room for patches of {patch.tolist()} "
            f"voxels beside the validation box {source.validation}, found none in "
            f"{MOST_DRAWS} draws. Make training.patch_vox or the box smaller."
        )

    def _target(self, index: int, rng: np.random.Generator) -> np.ndarray | None:
        """Draw what a patch shall show: a mistake, a cell, or None for any place."""
        settings, mistakes, cells = self._settings, self._mistakes[index], self._points[index]
        if len(mistakes) and rng.random() < settings.mistake_share:
            return cast(np.ndarray, mistakes[rng.integers(len(mistakes))])
        if not len(cells) or rng.random() >= settings.cell_share:
            return None
        if settings.dim_share and rng.random() < settings.dim_share:
            cells, shares = self._measured[index]
            return cast(np.ndarray, cells[rng.choice(len(cells), p=shares)])
        return cast(np.ndarray, cells[rng.integers(len(cells))])

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
