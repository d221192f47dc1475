"""Connected components and labels of a volume that may be larger than memory.

Counts and sums of coordinates are whole numbers and peaks are maxima, so that no result depends
on the order of the blocks or on their size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from voxmill.geometry import Box
from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.blocks import SerialReader, map_blocks
from voxmill.volumes.protocols import ReadableVolume

MaskReader = Callable[[Box], tuple[np.ndarray, np.ndarray | None]]
Labeller = Callable[[np.ndarray], tuple[np.ndarray, int]]
NEIGHBOURS_26 = np.ones((3, 3, 3), dtype=bool)


@dataclass(frozen=True)
class Regions:
    """Statistics of K regions.

    Parameters
    ----------
    counts : (K,) int64 array
        Voxels.
    sums : (K, 3) int64 array
        Sums of the voxels' coordinates z, y, x.
    peaks : (K,) float64 array
        Largest value in the region (1 where there are no values).
    lower, upper : (K, 3) int64 array
        Least and largest coordinates z, y, x.
    """

    counts: np.ndarray
    sums: np.ndarray
    peaks: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    @property
    def centroids(self) -> np.ndarray:
        """(K, 3) centroids in voxels, z, y, x."""
        return self.sums / np.maximum(self.counts, 1)[:, None]

    def at_border(self, shape: Sequence[int]) -> np.ndarray:
        """(K,) bool: which regions reach the border of a volume of this shape."""
        return ((self.lower == 0) | (self.upper == np.asarray(shape) - 1)).any(axis=1)

    @classmethod
    def all_of(cls, parts: list["Regions"]) -> "Regions":
        """The regions of several blocks, one behind the other."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))


def merge(groups: np.ndarray, n_groups: int, regions: Regions) -> Regions:
    """Add regions of the same group (0 to n_groups - 1) into one."""
    counts = np.zeros(n_groups, dtype=np.int64)
    sums = np.zeros((n_groups, 3), dtype=np.int64)
    peaks = np.full(n_groups, -np.inf)
    lower = np.full((n_groups, 3), np.iinfo(np.int64).max)
    upper = np.full((n_groups, 3), -1)
    np.add.at(counts, groups, regions.counts)
    np.add.at(sums, groups, regions.sums)
    np.maximum.at(peaks, groups, regions.peaks)
    np.minimum.at(lower, groups, regions.lower)
    np.maximum.at(upper, groups, regions.upper)
    return Regions(counts, sums, peaks, lower, upper)


def voxel_regions(
    groups: np.ndarray, n_groups: int, coordinates: np.ndarray, values: np.ndarray | None = None
) -> Regions:
    """Statistics of voxels (K, 3) that are grouped into regions 0 to n_groups - 1."""
    peaks = np.ones(len(groups)) if values is None else values.astype(np.float64)
    places = coordinates.astype(np.int64)
    ones = np.ones(len(groups), dtype=np.int64)
    return merge(groups, n_groups, Regions(ones, places, peaks, places, places))


def find_components(
    read_mask: MaskReader,
    shape: Sequence[int],
    block_vox: int,
    threads: int = 1,
    description: str = "components",
    label: Labeller | None = None,
) -> Regions:
    """26-connected components of a mask, block by block.

    Every block is labelled together with the one layer of voxels behind its far faces. Two
    neighbouring voxels of different blocks thus both lie in the window of one block, the one
    lowest along every axis: no connection is missed, over faces, edges or corners. Labels that
    different blocks gave to the same voxel are then joined. Of each block are kept the statistics
    of its labels and the mask's voxels in its seams.

    Parameters
    ----------
    read_mask : callable
        Box -> (mask, values): a boolean array (z, y, x) of the box, and the values of the same
        shape whose maximum each component gets, or None.
    shape : (3,) int
        The volume, voxels.
    block_vox : int
        Edge of a block, voxels; has no influence on the result.
    threads : int
        Blocks labelled at once.
    label : callable, optional
        How the components of a mask are numbered; `label_equal` keeps different values apart, and
        then `read_mask` gives whole numbers in place of booleans.

    Returns
    -------
    Regions
        In no particular order.
    """
    volume = Box.from_shape(shape)

    def work(block: Box) -> tuple[Regions, np.ndarray, np.ndarray]:
        window = Box(block.start, block.grow(1, within=volume).stop)
        mask, values = read_mask(window)
        return _label_block(mask, values, block, volume, label or label_mask)

    blocks = volume.blocks(block_vox)
    parts, seams, n_labels = [], [], 0
    for regions, seam_voxels, seam_labels in map_blocks(work, blocks, threads, description):
        parts.append(regions)
        seams.append((seam_voxels, seam_labels + n_labels))
        n_labels += len(regions.counts)
    labels = Regions.all_of(parts)
    voxels, owners = (np.concatenate(column) for column in zip(*seams, strict=True))
    order = np.argsort(voxels, kind="stable")
    voxels, owners = voxels[order], owners[order]
    same = np.flatnonzero(voxels[1:] == voxels[:-1])
    joins = coo_array((np.ones(len(same)), (owners[same], owners[same + 1])), (n_labels, n_labels))
    n_groups, groups = connected_components(joins, directed=False) if n_labels else (0, [])
    return merge(np.asarray(groups, dtype=np.int64), n_groups, labels)


def label_mask(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the 26-connected components of a mask from 1; returns their number too."""
    labels, n_labels = ndimage.label(mask, NEIGHBOURS_26)
    return labels, n_labels


def label_equal(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the 26-connected components of equal whole numbers other than 0 from 1.

    >>> label_equal(np.array([[[1, 1, 2, 0, 1]]]))
    (array([[[1, 1, 2, 0, 3]]]), 3)
    """
    from skimage.measure import label  # slow to import

    labels, n_labels = label(values, background=0, return_num=True, connectivity=3)
    return labels.astype(np.int64, copy=False), n_labels


def _label_block(
    mask: np.ndarray, values: np.ndarray | None, block: Box, volume: Box, label: Labeller
) -> tuple[Regions, np.ndarray, np.ndarray]:
    """Label one block's window: statistics of its own voxels, and the labels in its seams."""
    labels, n_labels = label(mask)
    local = np.argwhere(labels)
    groups = labels[tuple(local.T)].astype(np.int64) - 1
    coordinates = local + np.asarray(block.start)
    own = block.contains(coordinates)
    own_values = None if values is None else values[tuple(local[own].T)]
    regions = voxel_regions(groups[own], n_labels, coordinates[own], own_values)
    # A voxel behind a far face is the first layer of the block that owns it.
    first_layer = ((local == 0) & (np.asarray(block.start) > 0)).any(axis=1)
    seam = ~own | first_layer
    flat = np.ravel_multi_index(tuple(coordinates[seam].T), volume.shape)
    return regions, np.asarray(flat, dtype=np.int64), groups[seam]


def find_labels(
    volume: ReadableVolume, block_vox: int, threads: int = 1, description: str = "labels"
) -> Regions:
    """Statistics of every label (the voxels of one value other than 0) of a label volume.

    Parameters
    ----------
    volume : ReadableVolume
    block_vox, threads
        As in `find_components`.

    Returns
    -------
    Regions
        In the order of the labels, which are their `peaks`.

    Raises
    ------
    VoxmillError
        If a value is not a whole number, or is below 0.
    """
    reader = SerialReader(volume)

    def work(block: Box) -> tuple[np.ndarray, Regions]:
        window = reader.read_window(*block)
        local = np.argwhere(window)
        values = window[tuple(local.T)]
        with np.errstate(invalid="ignore"):  # NaN, which is refused below
            whole = values.astype(np.int64)
        if bad := values[(whole != values) | (whole < 0)][:1].tolist():
            raise VoxmillError(f"expected labels as whole numbers from 0, found the value {bad[0]}")
        names, groups = np.unique(whole, return_inverse=True)
        places = local + np.asarray(block.start)
        return names, voxel_regions(groups, len(names), places, whole)

    blocks = Box.from_shape(reader.shape).blocks(block_vox)
    results = list(map_blocks(work, blocks, threads, description))
    names = np.concatenate([found for found, _ in results])
    unique, groups = np.unique(names, return_inverse=True)
    return merge(groups, len(unique), Regions.all_of([regions for _, regions in results]))
