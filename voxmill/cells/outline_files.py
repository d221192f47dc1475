"""Outlines of labelled cells on planes, as selections (ROI) of ImageJ and Fiji."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import roifile
from scipy import ndimage

from voxmill.cells.colours import colour_of
from voxmill.geometry import Box
from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.protocols import ReadableVolume

MOST_PIXELS = 60535
"""Places along x and y that the format of ImageJ's selections holds."""
# Parts of a path of several loops: to its first corner, to the next one, back to the first.
_MOVE, _LINE, _CLOSE = 0.0, 1.0, 4.0


def write_outlines(path: Path, labels: ReadableVolume, box: Box) -> int:
    """Write cells.zip, a selection for each cell and plane: open the stack, then the file in Fiji.

    A selection holds exactly the pixels of its cell. Its name is the plane, from 1, and the cell's
    id; its colour is the cell's (`voxmill.cells.colours`).

    Parameters
    ----------
    path : path
    labels : ReadableVolume
    box : Box
        Where outlines are wanted, voxels of the labels; places are those of the whole volume.

    Returns
    -------
    int
        How many selections were written.

    Raises
    ------
    VoxmillError
        If the box reaches farther than ImageJ can tell places.
    """
    if max(box.stop[1:]) > MOST_PIXELS:
        raise VoxmillError(
            f"export.box: expected outlines at most {MOST_PIXELS} pixels from the first one (the "
            f"format of ImageJ's selections), found {box}. Choose another box."
        )
    count = 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for z in range(box.start[0], box.stop[0]):
            plane = labels.read_window(*box.with_axis(0, z, z + 1))[0]
            for label, contours in _contours(plane, box.start[1:]):
                roi = _selection(label, z, contours)
                # A date would make the same outlines other bytes.
                entry = zipfile.ZipInfo(f"{roi.name}.roi", (1980, 1, 1, 0, 0, 0))
                archive.writestr(entry, roi.tobytes(), zipfile.ZIP_DEFLATED)
                count += 1
    return count


def _contours(plane: np.ndarray, start: tuple[int, ...]) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Each label of a plane and its closed contours (N, 2) x, y as ImageJ counts them."""
    from skimage.measure import find_contours  # slow to import

    names, numbers = np.unique(plane, return_inverse=True)
    numbers = numbers.reshape(plane.shape)
    if names[0] != 0:  # find_objects takes 0 for nothing
        names, numbers = np.insert(names, 0, 0), numbers + 1
    for name, slices in zip(names[1:], ndimage.find_objects(numbers), strict=True):
        mask = np.pad(plane[slices] == name, 1)
        corner = [part.start + first - 1 for part, first in zip(slices, start, strict=True)]
        found = find_contours(mask.astype(np.float32), 0.5)
        # Of ImageJ the middle of a pixel is half a pixel from its corner, which is the place 0.
        yield int(name), [(contour + corner)[:-1, ::-1] + 0.5 for contour in found]


def _selection(label: int, z: int, contours: list[np.ndarray]) -> roifile.ImagejRoi:
    name = f"{z + 1:05d}-{label}"
    if len(contours) == 1:
        roi = roifile.ImagejRoi.frompoints(contours[0].astype(np.float32), name=name, position=z)
        roi.roitype = roifile.ROI_TYPE.POLYGON
    else:
        # Pieces and holes: one selection of several loops.
        roi = roifile.ImagejRoi(roitype=roifile.ROI_TYPE.RECT, name=name, position=z + 1)
        roi.multi_coordinates = np.concatenate([_path(each) for each in contours])
        roi.shape_roi_size = len(roi.multi_coordinates)
        everywhere = np.concatenate(contours)
        roi.left, roi.top = (int(n) for n in np.floor(everywhere.min(axis=0)))
        roi.right, roi.bottom = (int(n) for n in np.ceil(everywhere.max(axis=0)))
    roi.stroke_color = bytes([255, *colour_of(label)])
    return roi


def _path(contour: np.ndarray) -> np.ndarray:
    parts = np.insert(contour, 0, _LINE, axis=1)
    parts[0, 0] = _MOVE
    return np.append(parts.ravel(), _CLOSE).astype(np.float32)
