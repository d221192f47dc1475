"""Find the cells of a probability volume: centroids with a score, as a table.

The volume is read block by block, with threads, and never as a whole. Blocks have nothing to do
with tiles, and the table is the same, bit for bit, for every block size (`voxmill.cells.maxima` and
`voxmill.cells.components` say why).
"""

import time
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
from scipy import ndimage

from voxmill.cells.components import find_components
from voxmill.cells.maxima import ball, local_maxima, margin
from voxmill.cells.table import in_file, table_of, write_cells
from voxmill.config.cells import CellSettings
from voxmill.geometry import Box, Resampling, Triple, VoxelSize
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.jobs import job, log_rate, logger
from voxmill.volumes.blocks import SerialReader, map_blocks
from voxmill.volumes.part import PartOfVolume
from voxmill.volumes.probability import open_stored, to_probability
from voxmill.volumes.protocols import ReadableVolume

Found = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Of K cells: centroids (K, 3) in voxels, scores, numbers of voxels, and which are cut by the
volume's border."""
# More voxels in a ball mean a distance in the wrong unit.
MOST_BALL_VOXELS = 200_000


def cells_of_volume(
    volume: ReadableVolume, settings: CellSettings, voxel_size_um: Iterable[float], threads: int = 1
) -> pd.DataFrame:
    """Find the cells of a probability volume.

    Parameters
    ----------
    volume : ReadableVolume
        Probabilities as floats, or as unsigned integers whose dtype's largest value stands for 1.
    settings : CellSettings
    voxel_size_um : (3,) float
        Edge lengths of a voxel, z, y, x.
    threads : int
        Blocks worked on at once; memory grows with it.

    Returns
    -------
    pandas.DataFrame
        As `voxmill.cells.table.table_of` gives it; centroids in voxels (a voxel's centre is at
        its index) and in micrometres (voxels times voxel size).

    Raises
    ------
    VoxmillError
        If the volume is not 3D, a probability is not finite, or a length is impossible.
    """
    size = VoxelSize.of(voxel_size_um)
    if len(volume.shape) != 3:
        raise VoxmillError(f"expected a 3D probability volume, found shape {tuple(volume.shape)}")
    if threads < 1:
        raise VoxmillError(f"threads: expected 1 or more, found {threads}")
    places, scores, counts, cut = METHODS[settings.method](volume, settings, size, threads)
    volumes = counts * size.volume_um3
    least = settings.min_volume_um3 * np.where(cut, settings.border_share, 1.0)
    keep = (volumes >= least * (1 - 1e-9)) & (scores >= settings.min_score)
    return table_of(places[keep], scores[keep], volumes[keep], size)


class _Probability:
    """Smoothed probabilities: those of a voxel are the same in whatever box they are read."""

    def __init__(self, volume: ReadableVolume, settings: CellSettings, size: VoxelSize):
        self._reader = SerialReader(volume)
        self.whole = Box.from_shape(volume.shape)
        self._sigma = settings.smoothing_um / size.array
        z, y, x = (int(reach) for reach in np.ceil(4 * self._sigma))
        self._radius = (z, y, x)
        # Smoothing may exceed the largest value by rounding alone.
        self._empty_below = settings.threshold * (1 - 1e-5)

    def read(self, box: Box) -> np.ndarray | None:
        """Probabilities (float32) of the box, or None where none reaches the threshold."""
        outer = box.grow(self._radius, within=self.whole)
        values = self._reader.read_window(*outer)
        if values.dtype.kind not in "fub":
            raise VoxmillError(f"expected probabilities, found voxels of type {values.dtype}")
        values = to_probability(values)
        largest = values.max(initial=-np.inf)
        if not np.isfinite(values.sum(dtype=np.float64)):
            bad = np.argwhere(~np.isfinite(values))[0] + outer.start
            raise VoxmillError(
                f"the probability at voxel z, y, x = {tuple(bad.tolist())} is not finite"
            )
        if largest < self._empty_below:
            return None
        if any(self._radius):
            values = ndimage.gaussian_filter(
                values, self._sigma, mode="nearest", radius=self._radius
            )
        return values[box.relative_to(outer.start).slices]


def _maxima(volume: ReadableVolume, settings: CellSettings, size: VoxelSize, threads: int) -> Found:
    """Local maxima; see `voxmill.cells.maxima`."""
    apart = ball(settings.min_distance_um, size)
    around = ball(settings.min_distance_um / 2, size, at_least_vox=1)
    if len(apart.offsets) > MOST_BALL_VOXELS:
        raise VoxmillError(
            f"min_distance_um = {settings.min_distance_um:g} spans {len(apart.offsets)} voxels of "
            f"{list(size)} um; expected about half a cell diameter"
        )
    probability = _Probability(volume, settings, size)
    reach = margin(apart, around)

    def work(block: Box) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        window = block.grow(reach, within=probability.whole)
        values = probability.read(window)
        if values is None:
            return np.zeros((0, 3)), np.zeros(0), np.zeros(0, dtype=np.int64)
        return local_maxima(values, block, window.start, settings.threshold, apart, around)

    blocks = probability.whole.blocks(settings.block_vox)
    parts = list(map_blocks(work, blocks, threads, "cells"))
    places, scores, counts = (np.concatenate(column) for column in zip(*parts, strict=True))
    # The top of a parabola fitted beside the border may lie beyond it.
    last = np.asarray(volume.shape) - 1.0
    places = np.clip(places, 0, last)
    border_um = size.to_um(np.minimum(places, last - places)).min(axis=1)
    cut = border_um < settings.min_distance_um
    return places, scores, counts, cut


def _components(
    volume: ReadableVolume, settings: CellSettings, size: VoxelSize, threads: int
) -> Found:
    """Connected components; the score is the component's largest probability."""
    probability = _Probability(volume, settings, size)

    def read_mask(box: Box) -> tuple[np.ndarray, np.ndarray]:
        values = probability.read(box)
        if values is None:
            values = np.zeros(box.shape, np.float32)
        return values >= settings.threshold, values

    shape = volume.shape
    regions = find_components(read_mask, shape, settings.block_vox, threads, description="cells")
    return regions.centroids, regions.peaks, regions.counts, regions.at_border(shape)


METHODS: dict[str, Callable[[ReadableVolume, CellSettings, VoxelSize, int], Found]] = {
    "maxima": _maxima,
    "components": _components,
}


@job(outputs=("output_path",))
def find_cells(
    *,
    probability_path: str,
    output_path: str,
    settings: dict,
    voxel_size_um: Iterable[float],
    own_grid: dict | None = None,
    part: list[Triple] | None = None,
    box: list[Triple] | None = None,
    threads: int = 1,
) -> None:
    """Write cells.csv of a probability volume, in the voxels of the volume's file.

    Parameters
    ----------
    probability_path, output_path : path
        Volume of probabilities, and the table to write.
    settings : dict
        See `CellSettings`.
    voxel_size_um : (3,) float
        Edge lengths of a voxel of the probability, z, y, x.
    own_grid : dict, optional
        Where the volume was resampled on reading: `own_shape` and `own_voxel_size_um` of its file.
    part : pair of (3,) int, optional
        Start and stop of the only box of the probability that was predicted.
    box : pair of (3,) int, optional
        Start and stop of the box in which cells are wanted, voxels of the file.
    threads : int
        Blocks worked on at once.

    Raises
    ------
    VoxmillError
        As `cells_of_volume`, or if the volume can't be read or a setting is out of range.
    """
    checked = CellSettings.from_dict(settings)
    start = time.perf_counter()
    grid = Resampling.between(**own_grid, voxel_size_um=voxel_size_um) if own_grid else None
    with open_stored(probability_path) as volume:
        predicted = Box(*part) if part else Box.from_shape(volume.shape)
        try:
            seen = PartOfVolume(volume, predicted)
            cells = cells_of_volume(seen, checked, voxel_size_um, threads)
        except VoxmillError as error:
            known = str(probability_path) in str(error)
            raise error if known else VoxmillError(f"{probability_path}: {error}") from None
        log_rate("cells", predicted.size, time.perf_counter() - start)
    size, wanted = VoxelSize.of(voxel_size_um), Box(*box) if box else None
    cells = in_file(cells, predicted.start, size, grid, wanted)
    write_cells(output_path, cells)
    logger.info("%s: %d cells by %s", probability_path, len(cells), checked)
