"""Smooth outlines of cells whose topology is that of a ball.

1. *Territories.* The labels of `voxmill.cells.labels`, for half of the threshold, so that an
   outline can lie a little outside of the threshold's. Where two territories touch, each voxel goes
   to the one that has most of a small ball around it, twice: a smooth border. Where grey values are
   given, what follows uses levels of each cell's own (`voxmill.cells.contrast`).
2. *Growth.* In its territory an object grows from its seed over the voxels that reach the
   threshold, layer by layer; what these enclose on all sides (a dark nucleus) belongs to them.
3. *Flow.* A voxel at the object's border changes its side if the speed there says so:
   `force` x (probability against the threshold, -1 to 1) - `curvature` x (curvature - that of the
   ball of the same volume, so that round cells do not shrink). This is the steady state of the
   geometric deformable model of Bazin & Pham and of Bogovic, Prince & Bazin ("A multiple object
   geometric deformable model for image segmentation", Computer Vision and Image Understanding
   117(2), 2013), of which only the sign of the speed counts, as in Shi & Karl (IEEE Trans. Image
   Processing 17(5), 2008). The curvature is that of the share of a ball that lies in the object:
   1/2 - 3/32 x curvature x radius (Pottmann et al., Computer Aided Geometric Design 24(8-9),
   2007). Every change lowers one energy (the sum of all forces, and of all pairs of voxels in a
   ball that are on two sides), so that the flow ends.

Growth and flow change simple points alone (Han, Xu & Prince, IEEE Trans. PAMI 25(6), 2003), those
that are simple by either convention of neighbours. An object starts as one voxel, which stays: it
is one piece without handles and without holes, and can't vanish. Territories have no voxel in
common: objects never merge.

An object depends on what lies in its own territory alone, not on its neighbours' outlines. It
reaches no farther than the largest radius and two balls (`object_reach`), and a voxel's label
depends on what lies within `outline_margin`, however many iterations there are. Voxels change in
the order of their places, and all numbers are whole ones: blocks with that margin give the same
outlines bit for bit.
"""

import ctypes
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from voxmill.cells.contrast import own_levels, ring_vox
from voxmill.cells.labels import (
    Window,
    check_window,
    label_window,
    least_level,
    make_window,
    margin,
    radius_vox,
)
from voxmill.cells.maxima import Ball, ball
from voxmill.cells.seeds import LEVELS, Seeds
from voxmill.config.objects import ObjectSettings
from voxmill.engine.build import loaded
from voxmill.geometry import Box, Triple, VoxelSize

BALL_EDGES = 2.5  # radius of the ball that measures curvature, in smallest edges of a voxel
PASSES = 2
_UNIT = 2.0**24  # of forces, as whole numbers


class _Flow(ctypes.Structure):
    _fields_: ClassVar[Sequence[tuple[str, Any]]] = (
        ("n", ctypes.c_int32 * 3),
        ("volume", ctypes.c_int32 * 6),
        ("block", ctypes.c_int32 * 6),
        ("reach", ctypes.c_int32 * 3),
        ("kernel", ctypes.c_int32),
        ("passes", ctypes.c_int32),
        ("iterations", ctypes.c_int32),
        ("least", ctypes.c_int32),
        ("curvature", ctypes.c_int64),
        ("voxel", ctypes.c_double),
        ("force", ctypes.c_int64 * 256),
    )


def curvature_ball(size: VoxelSize) -> Ball:
    """The ball that measures curvature; at least the six neighbours of its middle."""
    return ball(BALL_EDGES * min(size), size, at_least_vox=1)


def object_reach(settings: ObjectSettings, size: VoxelSize) -> Triple:
    """How far from its seed's voxel an object may have voxels, z, y, x."""
    radius, small = radius_vox(settings.largest_radius_um, size), curvature_ball(size).reach
    z, y, x = (a + PASSES * b for a, b in zip(radius, small, strict=True))
    return z, y, x


def outline_margin(settings: ObjectSettings, size: VoxelSize) -> Triple:
    """Voxels beyond a block that its outlines depend on, z, y, x.

    A voxel's object has its seed within `object_reach`, and voxels as far beyond; whose these are
    depends on the balls around them, and on the labels' own margin. Levels of a cell's own depend
    on what lies around it.
    """
    reach, small = object_reach(settings, size), curvature_ball(size).reach
    around = margin(settings, size)
    ring = ring_vox(settings, size) if settings.foreground == "image" else (0, 0, 0)
    parts = zip(reach, small, around, ring, strict=True)
    z, y, x = (2 * a + PASSES * b + c + d for a, b, c, d in parts)
    return z, y, x


def outline_block(
    values: np.ndarray,
    start: Sequence[int],
    block: Box,
    whole: Box,
    seeds: Seeds,
    voxel_size_um: Sequence[float] | VoxelSize,
    settings: ObjectSettings,
    threads: int = 1,
    grey: np.ndarray | None = None,
) -> np.ndarray:
    """Labels of a block whose outlines are smooth.

    Parameters and errors are those of `voxmill.cells.labels.label_block`, with `outline_margin`
    around the block, and `grey`, smoothed grey values of the window where the values are those of
    the image (`voxmill.cells.foreground`).

    Returns
    -------
    (z, y, x) uint32 array
        The id of each voxel's cell, 0 for none.
    """
    size = VoxelSize.of(voxel_size_um)
    check_window(values.shape, start, block, whole, outline_margin(settings, size))
    window = make_window(values, start, whole, seeds, size, settings)
    threshold = least_level(settings.threshold)
    numbers = label_window(window, size, settings, max(1, threshold // 2))
    if grey is not None:
        near = block.grow(object_reach(settings, size), within=whole)
        wanted = np.all((window.starts >= near.start) & (window.starts < near.stop), axis=1)
        own = own_levels(window.values, grey, numbers, wanted, size, settings)
        window = dataclasses.replace(window, values=own)
    _flow(numbers, window, block, size, settings, threads)
    names = np.concatenate([np.zeros(1, np.uint32), window.ids])
    return names[numbers[block.relative_to(window.box.start).slices]]


def _flow(
    numbers: np.ndarray,
    window: Window,
    block: Box,
    size: VoxelSize,
    settings: ObjectSettings,
    threads: int,
) -> None:
    """Replace territories by the objects in them."""
    kernel = curvature_ball(size).offsets
    # Half a ball, less its share in the object, is 3/32 x curvature x radius of it.
    share = 32 / (3 * BALL_EDGES) / (2 * len(kernel))
    origin = window.box.start
    native = _Flow(
        window.box.shape,
        tuple(np.ravel(window.whole.relative_to(origin).to_lists()).tolist()),
        tuple(np.ravel(block.relative_to(origin).to_lists()).tolist()),
        object_reach(settings, size),
        len(kernel),
        PASSES,
        settings.iterations,
        least_level(settings.threshold),
        round(settings.curvature * share * _UNIT),
        1 / len(kernel),
        tuple(_forces(settings).tolist()),
    )
    offsets = np.ascontiguousarray(kernel, dtype=np.int32)
    values = np.ascontiguousarray(window.values)
    places = np.ascontiguousarray(window.starts - np.asarray(origin), dtype=np.int32)
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (offsets, values, places, numbers)]
    if loaded("objects").voxmill_outline(
        ctypes.byref(native), *pointers[:2], ctypes.c_int32(len(places)), *pointers[2:], threads
    ):
        raise MemoryError(
            f"outlines: the system does not give the memory for a window of {window.box.shape}"
        )


def _forces(settings: ObjectSettings) -> np.ndarray:
    """Force of each of 256 probabilities: -1 at 0, 0 just below the threshold's level, 1 at 1."""
    level = least_level(settings.threshold) - 0.5
    levels = np.arange(LEVELS + 1)
    against = np.where(levels < level, levels / level - 1, (levels - level) / (LEVELS - level))
    return np.rint(settings.force * against * _UNIT).astype(np.int64)
