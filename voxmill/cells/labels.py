"""Labels of cells: which voxel belongs to which, by a definition that is local.

Every cell has a seed: the voxel of its place in the table of cells or, where that voxel's
probability is below the threshold, the nearest voxel that reaches it (no farther than half the
largest radius; of several the first in z, y, x order; if there is none, the place's own voxel).

A path from a seed leads from neighbour to neighbour (of 26) over voxels that reach the threshold.
A step costs its length; more where the probability is low (`fade`), and more where it climbs
(`rise_um`). A voxel belongs to the seed with the cheapest path to it, of two equal ones to the seed
that is first in z, y, x order, and to none if that path costs more than `largest_radius_um`.

- A cell is one piece: each voxel of the cheapest path belongs to the same seed.
- Costs are whole numbers of a 64th of a voxel's edge and never below the length. So the label of a
  voxel depends only on what lies within the largest radius around it, and on the seeds that reach
  into that: a block that is read with `margin` voxels around it has the labels of the whole volume,
  bit for bit. There is nothing to merge between blocks.
"""

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from voxmill.cells.maxima import ball
from voxmill.cells.seeds import LEVELS, Seeds, quantised
from voxmill.config.objects import ObjectSettings
from voxmill.engine.build import loaded
from voxmill.geometry import Box, Triple, VoxelSize
from voxmill.runtime.errors import VoxmillError

STEPS = 64  # of the smallest edge of a voxel, in which costs are counted
_NEIGHBOURS = np.indices((3, 3, 3)).reshape(3, -1).T - 1
MOST_EDGES = 300  # a larger radius means a length in the wrong unit


class _Labelling(ctypes.Structure):
    _fields_: ClassVar[Sequence[tuple[str, Any]]] = (
        ("n", ctypes.c_int32 * 3),
        ("seeds", ctypes.c_int32),
        ("limit", ctypes.c_int32),
        ("rise", ctypes.c_int32),
        ("lengths", ctypes.c_int32 * 27),
        ("fade", ctypes.c_int32 * 256),
        ("least", ctypes.c_int32),
    )


@dataclass(frozen=True)
class Window:
    """Probabilities around a block, and the seeds in them.

    Parameters
    ----------
    values : (z, y, x) uint8 array
        Probabilities in steps of 1/255.
    box : Box
        Where the values lie in the volume; absolute voxels.
    whole : Box
        The volume.
    starts : (K, 3) int array
        Voxels of the seeds, absolute, in z, y, x order.
    ids : (K,) uint32 array
    """

    values: np.ndarray
    box: Box
    whole: Box
    starts: np.ndarray
    ids: np.ndarray


def least_level(threshold: float) -> int:
    """The least of 255 levels that reaches a threshold; at least 1."""
    return max(1, math.ceil(threshold * LEVELS - 1e-6))


def radius_vox(radius_um: float, size: VoxelSize) -> Triple:
    """Whole voxels within a radius along z, y, x."""
    z, y, x = (int(radius_um / edge * (1 + 1e-9)) for edge in size)
    return z, y, x


def margin(settings: ObjectSettings, size: VoxelSize) -> Triple:
    """Voxels beyond a block that its labels depend on, z, y, x.

    A seed lies within the largest radius of its voxels; its place lies half a radius farther, and
    which voxel is nearest to that depends on what lies half a radius beyond.
    """
    reach = radius_vox(settings.largest_radius_um, size)
    snap = radius_vox(settings.largest_radius_um / 2, size)
    z, y, x = (a + 2 * b + 1 for a, b in zip(reach, snap, strict=True))
    return z, y, x


def make_window(
    values: np.ndarray,
    start: Sequence[int],
    whole: Box,
    seeds: Seeds,
    size: VoxelSize,
    settings: ObjectSettings,
) -> Window:
    """Quantise the probabilities of a window and put its seeds on voxels.

    Parameters
    ----------
    values : (z, y, x) array
        Probabilities; see `quantised`.
    start : (3,) int
        The window's first voxel, absolute.
    whole : Box
        The volume.
    seeds : Seeds
        All those in the window; others are left out.
    """
    if (edges := settings.largest_radius_um / min(size)) > MOST_EDGES:
        raise VoxmillError(
            f"segment.largest_radius_um: expected at most {MOST_EDGES} edges of a voxel, found "
            f"{settings.largest_radius_um:g} um, {edges:.0f} edges of {list(size)} um. Give about "
            "the diameter of a cell."
        )
    levels = quantised(values)
    box = Box.from_shape(levels.shape, start)
    near = seeds.near(box)
    places, ids = _in_order(np.rint(near.places).astype(np.int64), near.ids)
    starts = _snapped(levels, box, places, settings, size)
    starts, ids = _in_order(starts, ids)
    return Window(levels, box, whole, starts, ids)


def _in_order(places: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((ids, *places.T[::-1]))
    return places[order], ids[order]


def _snapped(
    levels: np.ndarray, box: Box, places: np.ndarray, settings: ObjectSettings, size: VoxelSize
) -> np.ndarray:
    """Voxels of the seeds: the nearest that reaches the threshold, or the place's own."""
    allowed = levels >= least_level(settings.threshold)
    local = places - np.asarray(box.start)
    away = np.flatnonzero(~allowed[tuple(local.T)])
    if not len(away):
        return places
    offsets = ball(settings.largest_radius_um / 2, size).offsets
    # Squares in whole numbers: rounding must not decide which of two voxels is nearer.
    unit = np.rint(size.array / size.array.min() * 1024).astype(np.int64)
    far = ((offsets * unit) ** 2).sum(axis=1)
    offsets = offsets[np.lexsort((*offsets.T[::-1], far))]
    starts = places.copy()
    for k in away:
        near = local[k] + offsets
        near = near[((near >= 0) & (near < levels.shape)).all(axis=1)]
        if len(found := np.flatnonzero(allowed[tuple(near.T)])):
            starts[k] = near[found[0]] + np.asarray(box.start)
    return starts


def step_costs(
    settings: ObjectSettings, size: VoxelSize
) -> tuple[np.ndarray, np.ndarray, int, int]:
    """What steps cost, in whole numbers.

    Returns
    -------
    lengths : (27,) int array
        Of the steps to the neighbours; rounded up, so that no path is shorter than in space.
    fade : (256,) int array
        256ths of the length that a step into this probability costs more.
    rise : int
        For each of 255 levels that a step climbs.
    limit : int
        What a path may cost.
    """
    unit = size.array.min() / STEPS
    lengths = np.ceil(np.sqrt(((_NEIGHBOURS * size.array) ** 2).sum(axis=1)) / unit - 1e-9)
    fade = np.rint(256 * min(settings.fade, 1e6) * (1 - np.arange(256) / LEVELS))
    limit = int(settings.largest_radius_um / unit * (1 + 1e-9))
    # Beyond the limit nothing is reached, however much more it costs.
    rise = min(round(settings.rise_um / LEVELS / unit), limit + 1)
    return lengths.astype(np.int32), fade.astype(np.int32), rise, limit


def label_window(
    window: Window, size: VoxelSize, settings: ObjectSettings, least: int
) -> np.ndarray:
    """Numbers (from 1) of the window's seeds, for all of its voxels; 0 where there is none.

    Only voxels that are `margin` away from the window's faces (but for those of the volume) have
    the number that they have in the whole volume.
    """
    lengths, fade, rise, limit = step_costs(settings, size)
    shape = window.box.shape
    native = _Labelling(
        shape,
        len(window.ids),
        limit,
        rise,
        tuple(lengths.tolist()),
        tuple(fade.tolist()),
        least,
    )
    local = window.starts - np.asarray(window.box.start)
    starts = np.ascontiguousarray(np.ravel_multi_index(tuple(local.T), shape), dtype=np.int64)
    values = np.ascontiguousarray(window.values)
    labels, distances = np.empty(shape, np.int32), np.empty(shape, np.int32)
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (values, starts, labels, distances)]
    if loaded("objects").voxmill_label(ctypes.byref(native), *pointers):
        raise MemoryError(f"labels: the system does not give the memory for a window of {shape}")
    return labels


def label_block(
    values: np.ndarray,
    start: Sequence[int],
    block: Box,
    whole: Box,
    seeds: Seeds,
    voxel_size_um: Sequence[float] | VoxelSize,
    settings: ObjectSettings,
) -> np.ndarray:
    """Labels of a block.

    Parameters
    ----------
    values : (z, y, x) array
        Probabilities of the block grown by `margin`, clipped at the volume; floats from 0 to 1 or
        unsigned integers whose dtype's largest value stands for 1.
    start : (3,) int
        First voxel of the values, absolute.
    block, whole : Box
        The block and the volume, absolute voxels.
    seeds : Seeds
        At least those in the window.
    voxel_size_um : (3,) float
    settings : ObjectSettings

    Returns
    -------
    (z, y, x) uint32 array
        The id of each voxel's cell, 0 for none.

    Raises
    ------
    VoxmillError
        If values are no probabilities, the window is too small for the block, or there is no
        compiler for the native code.
    """
    size = VoxelSize.of(voxel_size_um)
    check_window(values.shape, start, block, whole, margin(settings, size))
    window = make_window(values, start, whole, seeds, size, settings)
    numbers = label_window(window, size, settings, least_level(settings.threshold))
    names = np.concatenate([np.zeros(1, np.uint32), window.ids])
    return names[numbers[block.relative_to(window.box.start).slices]]


def check_window(
    shape: Sequence[int], start: Sequence[int], block: Box, whole: Box, by: Triple
) -> None:
    """Refuse a window that does not hold all that a block's voxels depend on."""
    needed, found = block.grow(by, within=whole), Box.from_shape(shape, start)
    if needed.clip(found) != needed:
        raise VoxmillError(
            f"labels: expected a window of at least {needed} around the block {block}, found "
            f"{found}."
        )
