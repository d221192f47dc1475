"""Assemble predicted cores into one volume, plane by plane."""

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from voxmill.runtime.jobs import job, log_rate, progress
from voxmill.tiles.plan import read_plan
from voxmill.tiles.slab import PredictedCore, read_slab
from voxmill.volumes import write_planes

Plane = npt.NDArray[Any]


class Pages(Protocol):
    """The planes of a core."""

    def read(self, z: int, /) -> Plane:
        """The (y, x) plane `z` of the core."""


def assemble_slab(
    cores: Sequence[PredictedCore], pages: Mapping[str, Pages], plane_shape: Sequence[int]
) -> Iterator[Plane]:
    """Planes of one slab of tiles from the planes of the tiles' cores.

    Parameters
    ----------
    cores : sequence of PredictedCore
        All span the same planes, and together they cover each plane, or a pilot's part of it, once.
    pages : dict
        The planes of each core, by the tile's name.
    plane_shape : (2,) int

    Yields
    ------
    (y, x) array
        A fresh plane. One plane is in memory at a time.
    """
    for index in range(cores[0].core.shape[0]):
        parts = {core.name: pages[core.name].read(index) for core in cores}
        # A pilot has no more than a part of them.
        plane = np.zeros(plane_shape, parts[cores[0].name].dtype)
        for core in cores:
            _, rows, columns = core.core.slices
            plane[rows, columns] = parts[core.name]
        yield plane


@job
def stitch_volume(
    *, plan_path: str, manifest_paths: list[str], output_path: str, compression: str
) -> None:
    """Stream the predictions named in manifests into one OME-BigTIFF.

    Parameters
    ----------
    plan_path : path
    manifest_paths : list of path
        What `check_slab` wrote.
    output_path : path
        Probability, float32, with axes and voxel size in its metadata.
    compression : str
        Of the output: "none" or "zlib".

    Raises
    ------
    VoxmillError
        If a manifest is broken, or a prediction is missing or damaged.
    """
    start = time.perf_counter()
    volume = read_plan(plan_path).volume
    slabs = [read_slab(path) for path in manifest_paths]
    planes = progress(_planes(slabs, volume.shape), volume.shape[0], "plane", "stitching")
    write_planes(
        output_path,
        planes,
        volume.shape,
        np.float32,
        volume.voxel_size_um,
        None if compression == "none" else compression,
    )
    log_rate("stitched", math.prod(volume.shape), time.perf_counter() - start)


def _planes(slabs: list[list[PredictedCore]], shape: Sequence[int]) -> Iterator[Plane]:
    done = 0
    for cores in sorted(slabs, key=lambda cores: cores[0].core.start[0]):
        start, stop = (corner[0] for corner in cores[0].core)
        yield from _nothing(start - done, shape)
        done = stop
        # Only this slab's files are open: a process may not hold thousands.
        with contextlib.ExitStack() as stack:
            pages = {core.name: stack.enter_context(core.open()) for core in cores}
            yield from assemble_slab(cores, pages, shape[1:])
    yield from _nothing(shape[0] - done, shape)


def _nothing(planes: int, shape: Sequence[int]) -> Iterator[Plane]:
    """Planes outside of a pilot."""
    return (np.zeros(shape[1:], np.float32) for _ in range(planes))
