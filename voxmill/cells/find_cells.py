"""Cells out of a probability volume: centroids with a score, as a table.

The volume is read block by block, with threads, and never as a whole; blocks have nothing to do
with tiles, and the table is the same, bit for bit, for every block size (`voxmill.cells.maxima` and
`voxmill.cells.components` say why).
"""

import math
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import ndimage

from voxmill.cells.components import find_components
from voxmill.cells.maxima import ball, local_maxima, margin
from voxmill.cells.table import COLUMNS, write_cells
from voxmill.config.cells import CellSettings
from voxmill.evaluation.matching import check_lengths
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.jobs import job, log_rate, logger
from voxmill.tiles.grid import grow, inside
from voxmill.volumes.blocks import SerialReader, block_list, map_blocks

# More voxels in a ball mean a distance in the wrong unit.
MOST_BALL_VOXELS = 200_000


def cells_of_volume(volume, settings: CellSettings, voxel_size_um, threads: int = 1):
    """Find the cells of a probability volume.

    Parameters
    ----------
    volume
        Object with `shape` (z, y, x) and `read_window(start, stop)`; probabilities as floats, or
        as unsigned integers where the dtype's largest value is 1.
    settings : CellSettings
    voxel_size_um : (3,) float
        Edge lengths of a voxel, z, y, x.
    threads : int
        Blocks worked on at once; memory grows with it.

    Returns
    -------
    pandas.DataFrame
        Columns `COLUMNS`, sorted by z, y, x; centroids in absolute voxels (a voxel's centre is at
        its index) and in micrometres (voxels times voxel size).

    Raises
    ------
    VoxmillError
        If the volume is not 3D, a probability is not finite, or a length is impossible.
    """
    size = check_lengths(voxel_size_um)
    if len(volume.shape) != 3:
        raise VoxmillError(f"expected a 3D probability volume, found shape {tuple(volume.shape)}")
    if threads < 1:
        raise VoxmillError(f"threads: expected 1 or more, found {threads}")
    places, scores, counts, cut = METHODS[settings.method](volume, settings, size, threads)
    volumes = counts * float(np.prod(size))
    least = settings.min_volume_um3 * np.where(cut, settings.border_share, 1.0)
    keep = (volumes >= least * (1 - 1e-9)) & (scores >= settings.min_score)
    return _table(places[keep], scores[keep], volumes[keep], size)


def _table(places, scores, volumes, size):
    # Sorted as they are written: rounding in the last bit must not decide the order.
    z, y, x = np.round(places, 4).T
    order = np.lexsort((volumes, scores, x, y, z))
    places, scores, volumes = places[order], scores[order], volumes[order]
    numbers = np.column_stack([places, places * size, scores, volumes])
    table = pd.DataFrame(numbers, columns=list(COLUMNS)[1:])
    table.insert(0, "id", np.arange(1, len(table) + 1))
    return table


class _Probability:
    """Smoothed probabilities of any box, the same whatever box they are asked for in."""

    def __init__(self, volume, settings: CellSettings, size):
        self._reader = SerialReader(volume)
        self.shape = self._reader.shape
        self._sigma = settings.smoothing_um / size
        self._radius = np.ceil(4 * self._sigma).astype(int)
        # Smoothing may exceed the largest value by rounding alone.
        self._empty_below = settings.threshold * (1 - 1e-5)

    def read(self, start, stop):
        """Probabilities (float32) of the box, or None where none reaches the threshold."""
        outer = grow(start, stop, self._radius, self.shape)
        values = self._reader.read_window(*outer)
        if values.dtype.kind not in "fub":
            raise VoxmillError(f"expected probabilities, found voxels of type {values.dtype}")
        if values.dtype.kind == "u":
            values = values / np.float32(np.iinfo(values.dtype).max)
        values = values.astype(np.float32, copy=False)
        largest = values.max(initial=-np.inf)
        if not np.isfinite(values.sum(dtype=np.float64)):
            bad = np.argwhere(~np.isfinite(values))[0] + outer[0]
            raise VoxmillError(
                f"the probability at voxel z, y, x = {tuple(bad.tolist())} is not finite"
            )
        if largest < self._empty_below:
            return None
        if self._radius.any():
            values = ndimage.gaussian_filter(
                values, self._sigma, mode="nearest", radius=tuple(self._radius.tolist())
            )
        return values[inside(start, stop, outer[0])]


def _maxima(volume, settings: CellSettings, size, threads: int):
    """Local maxima; see `voxmill.cells.maxima`."""
    apart = ball(settings.min_distance_um, size)
    around = ball(settings.min_distance_um / 2, size, at_least_vox=1)
    if len(apart.offsets) > MOST_BALL_VOXELS:
        raise VoxmillError(
            f"min_distance_um = {settings.min_distance_um:g} spans {len(apart.offsets)} voxels of "
            f"{size.tolist()} um; expected about half a cell diameter"
        )
    probability = _Probability(volume, settings, size)
    reach = margin(apart, around)

    def work(start, stop):
        outer = grow(start, stop, reach, probability.shape)
        values = probability.read(*outer)
        if values is None:
            return np.zeros((0, 3)), np.zeros(0), np.zeros(0, dtype=np.int64)
        return local_maxima(values, start, stop, outer[0], settings.threshold, apart, around)

    blocks = block_list(probability.shape, settings.block_vox)
    parts = list(map_blocks(work, blocks, threads, "cells"))
    places, scores, counts = (np.concatenate(column) for column in zip(*parts, strict=True))
    # The top of a parabola fitted beside the border may lie beyond it.
    last = np.asarray(probability.shape) - 1.0
    places = np.clip(places, 0, last)
    cut = (np.minimum(places, last - places) * size < settings.min_distance_um).any(axis=1)
    return places, scores, counts, cut


def _components(volume, settings: CellSettings, size, threads: int):
    """Connected components; the score is the component's largest probability."""
    probability = _Probability(volume, settings, size)

    def read_mask(start, stop):
        values = probability.read(start, stop)
        if values is None:
            values = np.zeros([b - a for a, b in zip(start, stop, strict=True)], np.float32)
        return values >= settings.threshold, values

    regions = find_components(
        read_mask, probability.shape, settings.block_vox, threads, description="cells"
    )
    return regions.centroids, regions.peaks, regions.counts, regions.at_border(probability.shape)


METHODS: dict[str, Callable] = {"maxima": _maxima, "components": _components}


@job
def find_cells(*, probability_path, output_path, settings: dict, voxel_size_um, threads=1) -> None:
    """Write cells.csv of a probability volume.

    Parameters
    ----------
    probability_path, output_path : path
        Volume of probabilities, and the table to write.
    settings : dict
        See `CellSettings`.
    voxel_size_um : (3,) float
        Edge lengths of a voxel, z, y, x.
    threads : int
        Blocks worked on at once.
    """
    from voxmill.volumes import open_volume, read_header

    checked = CellSettings.from_dict(settings)
    start = time.perf_counter()
    with open_volume(read_header(probability_path)) as volume:
        try:
            cells = cells_of_volume(volume, checked, voxel_size_um, threads)
        except VoxmillError as error:
            known = str(probability_path) in str(error)
            raise error if known else VoxmillError(f"{probability_path}: {error}") from None
        log_rate("cells", math.prod(volume.shape), time.perf_counter() - start)
    write_cells(output_path, cells)
    logger.info("%s: %d cells by %s", probability_path, len(cells), checked)
