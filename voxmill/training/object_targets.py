"""Targets that part touching objects, from their labels.

Each says of every voxel how far inside of its object it is, in its own way; `TARGETS` names them,
`voxmill.networks.heads` says how a prediction is read. All depend on the labels within a cell
diameter alone: the objects that a window cuts there are larger than any cell.
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from voxmill.geometry import VoxelSize

# Half of a boundary's width, in edges of the smallest voxel: thinner ones are lost to blur.
BOUNDARY_EDGES = 1.5


def objects_in(window: np.ndarray) -> np.ndarray:
    """Labels of the objects in a window.

    Parameters
    ----------
    window : (z, y, x) int array
        Labels, or a mask (one value beside 0), whose objects are what hangs together by faces.

    Returns
    -------
    (z, y, x) int array
        0 for the background.
    """
    values = window[window > 0]
    if values.size and values.min() == values.max():
        labelled: np.ndarray = ndimage.label(window > 0)[0]
        return labelled
    return window


def depth_um(labels: np.ndarray, size: VoxelSize) -> np.ndarray:
    """How deep each voxel lies in its object: distance to the next voxel of anything else.

    The faces of the array are no border: objects are cut there.

    Parameters
    ----------
    labels : (z, y, x) int array
    size : VoxelSize

    Returns
    -------
    (z, y, x) float array
        Micrometres, 0 in the background.
    """
    border = labels == 0
    for axis in range(3):
        one = [slice(None)] * 3
        two = [slice(None)] * 3
        one[axis], two[axis] = slice(None, -1), slice(1, None)
        differ = labels[tuple(one)] != labels[tuple(two)]
        border[tuple(one)] |= differ
        border[tuple(two)] |= differ
    if not border.any():
        return np.full(labels.shape, np.inf)
    far = ndimage.distance_transform_edt(~border, sampling=tuple(size))
    # A voxel at the border has its centre half an edge inside.
    depth: np.ndarray = np.where(labels > 0, far + min(size) / 2, 0.0)
    return depth


def distance_target(labels: np.ndarray, size: VoxelSize, diameter_um: float) -> np.ndarray:
    """Depth in the object as a share of the object's largest: 1 in the middle of each.

    Small objects reach 1 as large ones do (as the distance map of Naylor et al., IEEE Trans.
    Medical Imaging 38(2), 2019, but for its unit).
    """
    depth = np.minimum(depth_um(labels, size), diameter_um / 2)
    inside = labels > 0
    names, groups = np.unique(labels[inside], return_inverse=True)
    most = np.zeros(len(names))
    np.maximum.at(most, groups, depth[inside])
    target = np.zeros(labels.shape)
    target[inside] = depth[inside] / most[groups]
    return target


def centre_target(labels: np.ndarray, size: VoxelSize, diameter_um: float) -> np.ndarray:
    """A Gaussian around the deepest place of each object, as wide as the object.

    The standard deviation is half of the largest depth; the place is the mean of the voxels that
    are deeper than nine tenths of it.
    """
    share = distance_target(labels, size, diameter_um)
    depth = np.minimum(depth_um(labels, size), diameter_um / 2)
    target = np.zeros(labels.shape)
    for name, box in enumerate(ndimage.find_objects(labels.astype(np.int32)), start=1):
        if box is None:
            continue
        own = labels[box] == name
        core = own & (share[box] >= 0.9)
        middle = np.argwhere(core).mean(axis=0)
        sigma = depth[box][core].max() / 2
        grid = np.indices(own.shape).reshape(3, -1).T - middle
        far = ((grid * size.array) ** 2).sum(axis=1).reshape(own.shape)
        target[box][own] = np.exp(-far[own] / (2 * sigma**2))
    return target


def boundary_target(labels: np.ndarray, size: VoxelSize, diameter_um: float) -> np.ndarray:
    """1 in the outermost voxels of each object, where others or the background touch it."""
    depth = depth_um(labels, size)
    edge: np.ndarray = (labels > 0) & (depth <= BOUNDARY_EDGES * min(size) * (1 + 1e-9))
    return edge.astype(float)


TARGETS: dict[str, Callable[[np.ndarray, VoxelSize, float], np.ndarray]] = {
    "distance": distance_target,
    "centre": centre_target,
    "boundary": boundary_target,
}
"""Names of the targets: (z, y, x) labels, voxel size and diameter of a cell to 0..1 a voxel."""
