"""Windows of TIFF pages that are compressed or scattered: only what they need is decoded."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.header import VolumeAxes, VolumeHeader
from voxmill.volumes.windows import Windows, read_exactly, rescale


@dataclass(frozen=True)
class Planes:
    """Where the planes of a volume lie among the pages of a series.

    Parameters
    ----------
    first : int
        Page of plane 0.
    step : int
        Pages from a plane to the next.
    sample : int
        Which of a pixel's samples holds the channel.
    """

    first: int
    step: int
    sample: int


def find_planes(path: Path, series: tifffile.TiffPageSeries, axes: VolumeAxes) -> Planes:
    """Find the pages of the planes of the chosen channel.

    Parameters
    ----------
    path : Path
        For messages.
    series : tifffile.TiffPageSeries
    axes : VolumeAxes
        Axes of the series' array, those of length 1 included.

    Raises
    ------
    VoxmillError
        If a page is not one plane (y, x), with or without samples.
    """
    shape, page, inside = series.get_shape(False), series.keyframe, 0
    while math.prod(shape[inside:]) > math.prod(page.shape):
        inside += 1  # axes from here on lie inside a page
    z_axis, y_axis, x_axis = axes.zyx
    same = [n for n in page.shaped if n > 1] == [n for n in shape[inside:] if n > 1]
    if not same or not z_axis < inside <= y_axis < x_axis:
        raise VoxmillError(
            f"{path}: expected pages that are planes (y, x), found compressed pages of shape "
            f"{page.shape} in a volume of shape {shape} with axes {series.get_axes(False)}. Save "
            "it uncompressed, or with named axes such as ZYX."
        )
    step, channel = math.prod(shape[z_axis + 1 : inside]), axes.channel or 0
    if axes.channel_axis is not None and axes.channel_axis < inside:
        return Planes(channel * math.prod(shape[axes.channel_axis + 1 : inside]), step, 0)
    return Planes(0, step, channel)


class PagedWindows(Windows):
    """Windows of a TIFF with compressed or scattered pages: only what is needed is decoded."""

    def __init__(
        self,
        header: VolumeHeader,
        tif: tifffile.TiffFile,
        series: tifffile.TiffPageSeries,
        planes: Planes,
        scale: tuple[float, float] | None = None,
    ):
        super().__init__(header)
        self._tif, self._series, self._planes, self._scale = tif, series, planes, scale

    def close(self) -> None:
        """Release the file."""
        self._tif.close()

    def _plane(self, z: int, rows: slice, columns: slice) -> np.ndarray:
        page = self._series[self._planes.first + z * self._planes.step]
        plane = read_page(page, rows, columns, self._planes.sample, self.header.path, z)
        return rescale(plane, self._scale)


def read_page(
    page: tifffile.TiffPage | tifffile.TiffFrame | None,
    rows: slice,
    columns: slice,
    sample: int,
    path: str | Path,
    z: int,
) -> np.ndarray:
    """Decode the strips or tiles of a TIFF page that meet a rectangle.

    `TiffPage.asarray` and `TiffPage.segments` decode the whole page, which takes 9 to 16 times as
    long for a window of 200 x 200 in pages of 2048 x 2048 (`benchmarks/tiff_headers.py`).

    Parameters
    ----------
    page : tifffile page or frame
        None where it lies in a file that is missing.
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

    Raises
    ------
    VoxmillError
        If the page is truncated or can't be decoded.
    """
    if page is None or (key := page.keyframe) is None:
        raise VoxmillError(
            f"{path}: plane {z} is missing. Put all files of the volume into one folder, under "
            "their first names."
        )
    plane = np.zeros((rows.stop - rows.start, columns.stop - columns.start), key.dtype)
    try:
        for index in range(math.prod(key.chunked)):
            # Without data, tifffile decodes nothing and says where the segment lies.
            _, (part, _, y, x, _), (_, height, width, samples) = key.decode(None, index)
            y0, y1 = max(rows.start, y), min(rows.stop, y + height)
            x0, x1 = max(columns.start, x), min(columns.stop, x + width)
            # Samples lie side by side in a segment, or each in segments of its own.
            if y0 >= y1 or x0 >= x1 or part != (0 if samples > 1 else sample):
                continue
            data = _read_segment(page, index, path, z)
            segment = key.decode(
                data, index, jpegtables=page.jpegtables, jpegheader=key.jpegheader
            )[0]
            if segment is not None:  # a segment that was never written reads as zeros
                window = segment[0, y0 - y : y1 - y, x0 - x : x1 - x]
                target = plane[y0 - rows.start : y1 - rows.start]
                target[:, x0 - columns.start : x1 - columns.start] = window[
                    ..., sample if samples > 1 else 0
                ]
    except VoxmillError:
        raise
    except Exception as error:  # each codec raises errors of its own
        raise VoxmillError(
            f"{path}: plane {z} can't be decoded ({error}). Copy or write the file again; a "
            "rare compression may need another one, such as zlib or none."
        ) from None
    return plane


def _read_segment(
    page: tifffile.TiffPage | tifffile.TiffFrame, index: int, path: str | Path, z: int
) -> bytes | None:
    if index >= len(page.dataoffsets):
        raise ValueError(f"segment {index} is missing")
    count = page.databytecounts[index]
    if not count:
        return None
    file = page.parent.filehandle
    if file.closed:  # tifffile closes the further files of a multi-file OME-TIFF
        file.open()
    return read_exactly(file, page.dataoffsets[index], count, path, f"plane {z}")
