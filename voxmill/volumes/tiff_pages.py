"""Windows of TIFF pages that are compressed or scattered: only what they need is decoded."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.header import Layout, VolumeHeader
from voxmill.volumes.windows import Windows, read_exactly


@dataclass(frozen=True)
class Stack:
    """The pages of a TIFF that make one array.

    Parameters
    ----------
    pages : sequence
        tifffile pages or frames, in the array's order.
    keyframe : tifffile.TiffPage
        The page whose tags hold for all.
    shape, axes : tuple of int, str
        The array's shape and a letter per axis, axes of length 1 included.
    dataoffset : int or None
        Where the voxels begin if they all lie in one uncompressed run.
    """

    pages: object
    keyframe: tifffile.TiffPage
    shape: tuple[int, ...]
    axes: str
    dataoffset: int | None


class PageMap:
    """Where the voxels of a plane lie among compressed or scattered pages.

    Parameters
    ----------
    path : Path
        For messages.
    stack : Stack
    layout : Layout
        Axes of `stack.shape`.
    """

    def __init__(self, path: Path, stack: Stack, layout: Layout):
        self.pages, self.keyframe = stack.pages, stack.keyframe
        shape, inside = stack.shape, 0
        while math.prod(shape[inside:]) > math.prod(self.keyframe.shape):
            inside += 1
        _, y_axis, x_axis = layout.zyx
        plane = [n for n in shape[inside:] if n > 1]
        if (
            [n for n in self.keyframe.shaped if n > 1] != plane
            or not inside <= y_axis < x_axis
            or layout.zyx[0] >= inside
        ):
            raise VoxmillError(
                f"{path}: expected pages that are planes (y, x), found compressed pages of shape "
                f"{self.keyframe.shape} in a volume of shape {shape} with axes {stack.axes}. Save "
                "it uncompressed, or with named axes such as ZYX."
            )
        self._leading = shape[:inside]
        self._layout = layout
        self.sample = layout.channel or 0
        if layout.channel_axis is None or layout.channel_axis < inside:
            self.sample = 0

    def page(self, z: int):
        """The tifffile page that holds plane `z` of the channel."""
        index = [0] * len(self._leading)
        index[self._layout.zyx[0]] = z
        if self._layout.channel_axis is not None and self._layout.channel_axis < len(index):
            index[self._layout.channel_axis] = self._layout.channel
        return self.pages[int(np.ravel_multi_index(index, self._leading))]


class PagedWindows(Windows):
    """Windows of a TIFF with compressed or scattered pages: only what is needed is decoded."""

    def __init__(self, header: VolumeHeader, tif: tifffile.TiffFile, page_map: PageMap):
        super().__init__(header)
        self._tif, self._map = tif, page_map

    def close(self):
        self._tif.close()

    def _plane(self, z, rows, columns):
        return read_page(self._map.page(z), rows, columns, self._map.sample, self.header.path, z)


def read_page(page, rows: slice, columns: slice, sample: int, path, z: int) -> np.ndarray:
    """Decode the strips or tiles of a TIFF page that meet a rectangle.

    Parameters
    ----------
    page : tifffile page or frame
    rows, columns : slice
        The rectangle, with start and stop.
    sample : int
        The sample (channel) of each pixel to take.
    path, z : str, int
        For messages.

    Returns
    -------
    plane : (y, x) array
        The file's values in native byte order.
    """
    plane = np.zeros((rows.stop - rows.start, columns.stop - columns.start), page.keyframe.dtype)
    for index in _segments(page.keyframe, rows, columns, sample):
        try:
            segment, (_, _, y, x, _), (_, height, width, samples) = _decode(page, index, path, z)
        except VoxmillError:
            raise
        except Exception as error:  # each codec raises errors of its own
            raise VoxmillError(
                f"{path}: plane {z} can't be decoded ({error}). Copy or write the file again; a "
                "rare compression may need another one, such as zlib or none."
            ) from None
        if segment is None:  # a segment that was never written reads as zeros
            continue
        y0, y1 = max(rows.start, y), min(rows.stop, y + height)
        x0, x1 = max(columns.start, x), min(columns.stop, x + width)
        target = plane[y0 - rows.start : y1 - rows.start, x0 - columns.start : x1 - columns.start]
        target[:] = segment[0, y0 - y : y1 - y, x0 - x : x1 - x, sample if samples > 1 else 0]
    return plane


def _decode(page, index: int, path, z: int):
    keyframe = page.keyframe
    if index >= len(page.dataoffsets):
        raise ValueError(f"segment {index} is missing")
    count = page.databytecounts[index]
    data = None
    if count:
        file = page.parent.filehandle
        if file.closed:  # tifffile closes the further files of a multi-file OME-TIFF
            file.open()
        data = read_exactly(file, page.dataoffsets[index], count, path, f"plane {z}")
    tables = {}
    if keyframe.compression in (6, 7, 34892, 33007):  # JPEG: tables are kept beside the strips
        tables = {"jpegtables": page.jpegtables, "jpegheader": keyframe.jpegheader}
    return keyframe.decode(data, index, _fullsize=keyframe.is_tiled, **tables)


def _segments(keyframe, rows: slice, columns: slice, sample: int) -> Iterator[int]:
    """Numbers of the page's strips or tiles that meet the rectangle."""
    if keyframe.is_tiled:
        height, width = keyframe.tilelength, keyframe.tilewidth
    else:
        height, width = min(keyframe.rowsperstrip, keyframe.imagelength), keyframe.imagewidth
    down, across = math.ceil(keyframe.imagelength / height), math.ceil(keyframe.imagewidth / width)
    plane = sample * down * across if keyframe.planarconfig == 2 else 0
    for i in range(rows.start // height, math.ceil(rows.stop / height)):
        for j in range(columns.start // width, math.ceil(columns.stop / width)):
            yield plane + i * across + j
