"""TIFF, BigTIFF, OME-TIFF and ImageJ TIFF: headers by tifffile, windows read in pieces."""

import contextlib
import json
import logging
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from voxmill.errors import VoxmillError
from voxmill.volumes.header import Layout, VolumeHeader, check_dtype, find_layout
from voxmill.volumes.tiff_scale import voxel_size
from voxmill.volumes.windows import RawWindows, Windows, read_exactly

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_COLOURS = {"RGB", "YCBCR", "CMYK", "CIELAB", "ICCLAB", "ITULAB", "LOGLUV"}


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


def matches(path: Path, head: bytes) -> bool:
    """Whether the file begins as a TIFF does."""
    return head[:4] in _MAGIC


def read_header(path: Path, channel: int | None, dtypes: tuple[str, ...]) -> VolumeHeader:
    """Header of a TIFF volume; see `voxmill.volumes.read_header`."""
    with reading(path), tifffile.TiffFile(path) as tif:
        stack = find_stack(tif, path)
        page = stack.keyframe
        if page.photometric.name in _COLOURS and page.samplesperpixel > 1:
            raise VoxmillError(
                f"{path}: expected grey values, found a colour image ({page.photometric.name}, "
                f"{page.samplesperpixel} samples a voxel). Save the channel that shows the cells "
                "as a grey stack (Fiji: Image > Color > Split Channels)."
            )
        dtype = check_dtype(path, page.dtype, dtypes)
        layout = find_layout(path, stack.shape, stack.axes, channel)
        if stack.dataoffset is None:
            PageMap(path, stack, layout)
        size, source = voxel_size(tif)
        return VolumeHeader(
            path=str(path),
            format=_format_name(tif),
            shape=tuple(stack.shape[axis] for axis in layout.zyx),
            dtype=dtype,
            voxel_size_um=size,
            voxel_size_source=source,
            channel=layout.channel,
            windows=True,
            file_shape=tuple(stack.shape),
            file_axes=stack.axes,
        )


def open_windows(header: VolumeHeader) -> Windows:
    """Windows of a TIFF volume: raw reads where nothing is compressed, else page by page."""
    path = Path(header.path)
    with contextlib.ExitStack() as cleanup:
        cleanup.enter_context(reading(path))
        tif = tifffile.TiffFile(path)
        keep = cleanup.enter_context(contextlib.ExitStack())
        keep.callback(tif.close)
        stack = find_stack(tif, path)
        layout = find_layout(path, stack.shape, stack.axes, header.channel)
        if stack.dataoffset is None:
            windows = PagedWindows(header, tif, PageMap(path, stack, layout))
            keep.pop_all()
            return windows
        dtype = stack.keyframe.dtype.newbyteorder(tif.byteorder)
        strides = np.cumprod([dtype.itemsize, *stack.shape[:0:-1]])[::-1].tolist()
        skip = strides[layout.channel_axis] * layout.channel if layout.channel else 0
        zyx = [strides[axis] for axis in layout.zyx]
        return RawWindows(header, dtype, stack.dataoffset + skip, zyx)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn errors of a TIFF's structure into ones that name the file; silence tifffile's log."""
    logger = logging.getLogger("tifffile")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        yield
    except VoxmillError:
        raise
    except (tifffile.TiffFileError, struct.error, IndexError, KeyError, ValueError) as error:
        raise VoxmillError(
            f"{path}: expected a whole TIFF, found a damaged or truncated one ({error}). Copy or "
            "write the file again."
        ) from None
    finally:
        logger.disabled = was_disabled


def find_stack(tif: tifffile.TiffFile, path: Path) -> Stack:
    """Find the pages that make the volume; refuse a file that is shorter than it announces."""
    first = tif.pages.first
    shape_in_metadata = first.is_imagej or first.is_shaped
    if not (shape_in_metadata and first.is_final):
        count_pages(tif, path)
    if first.is_shaped and first.ndim == 2 and _is_single_plane(tif) and count_pages(tif, path) > 1:
        return _stack_of_planes(tif, path)
    volumes = [series for series in tif.series if series.ndim > 2] or tif.series[:1]
    if len(volumes) > 1:
        raise VoxmillError(
            f"{path}: expected one volume, found {len(volumes)} "
            f"({', '.join(str(series.shape) for series in volumes)}). Save one per file."
        )
    series = volumes[0]
    shape, axes = series.get_shape(False), series.get_axes(False)
    stack = Stack(series.pages, series.keyframe, shape, axes, series.dataoffset)
    if series.dataoffset is not None:
        nbytes = math.prod(shape) * series.keyframe.dtype.itemsize
        check_end(path, tif.filehandle.size, series.dataoffset + nbytes)
        return stack
    if shape_in_metadata and first.is_final:
        count_pages(tif, path)
    if tif.is_ome and any(page is None for page in stack.pages):
        raise VoxmillError(
            f"{path}: expected {len(stack.pages)} planes as its OME-XML announces, found some "
            "missing. Put all files of the volume into one folder, under their first names."
        )
    _check_ends(path, stack)
    return stack


def _is_single_plane(tif: tifffile.TiffFile) -> bool:
    """Whether the file was written plane by plane, each announced as an image of its own."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return len(json.loads(tif.pages.first.shaped_description)["shape"]) == 2
    return False


def _stack_of_planes(tif: tifffile.TiffFile, path: Path) -> Stack:
    pages = list(tif.pages)
    first = pages[0]
    for index, page in enumerate(pages):
        if (page.shape, page.dtype) != (first.shape, first.dtype):
            raise VoxmillError(
                f"{path}: expected pages of one shape and type, found page 0 of {first.shape} "
                f"{first.dtype} and page {index} of {page.shape} {page.dtype}. Save one volume "
                "per file."
            )
    stack = Stack(pages, first, (len(pages), *first.shape), "I" + first.axes, None)
    _check_ends(path, stack)
    return stack


def count_pages(tif: tifffile.TiffFile, path: Path) -> int:
    """Follow the chain of page headers to its end and count them; no pixel is read."""
    file, form = tif.filehandle, tif.tiff
    file.seek(form.offsetsize if form.is_bigtiff else 4)
    (offset,) = struct.unpack(form.offsetformat, file.read(form.offsetsize))
    seen = set()
    while offset:
        try:
            if offset in seen:
                raise ValueError("a page header that points back")
            seen.add(offset)
            file.seek(offset)
            (tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
            rest = file.read(tags * form.tagsize + form.offsetsize)
            (offset,) = struct.unpack(form.offsetformat, rest[-form.offsetsize :])
        except (struct.error, ValueError, OSError) as error:
            raise VoxmillError(
                f"{path}: truncated or damaged: after {len(seen)} page headers expected another "
                f"at byte {offset}, the file has {file.size} bytes ({error}). Copy or write the "
                "file again."
            ) from None
    return len(seen)


def _check_ends(path: Path, stack: Stack) -> None:
    for index in (0, len(stack.pages) - 1):
        page = stack.pages[index]
        ends = [a + b for a, b in zip(page.dataoffsets, page.databytecounts, strict=True) if b]
        check_end(path, page.parent.filehandle.size, max(ends, default=0))


def check_end(path: Path, found: int, announced: int) -> None:
    """Refuse a file that is shorter than its header announces."""
    if found < announced:
        raise VoxmillError(
            f"{path}: truncated: the header announces {announced} bytes, found {found}. Copy or "
            "write the file again."
        )


def _format_name(tif: tifffile.TiffFile) -> str:
    if tif.is_ome:
        return "OME-TIFF"
    if tif.is_imagej:
        return "ImageJ TIFF"
    return "BigTIFF" if tif.is_bigtiff else "TIFF"


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
