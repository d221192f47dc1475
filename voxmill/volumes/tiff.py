"""TIFF, BigTIFF, OME-TIFF and ImageJ TIFF: which pages make the volume, and is the file whole."""

import contextlib
import json
import logging
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile

from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.header import VolumeHeader, check_dtype, find_layout
from voxmill.volumes.tiff_pages import PagedWindows, PageMap, Stack
from voxmill.volumes.tiff_scale import voxel_size
from voxmill.volumes.tiff_tags import PageTags, read_pages
from voxmill.volumes.windows import RawWindows, Windows

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_COLOURS = {"RGB", "YCBCR", "CMYK", "CIELAB", "ICCLAB", "ITULAB", "LOGLUV"}


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
    # Where the metadata hold the shape and the voxels lie in one run, size alone is checked.
    in_one_run = (first.is_imagej or first.is_shaped) and first.is_final
    single = first.is_shaped and _is_single_plane(first)
    pages = [] if in_one_run and not single else walk_pages(path)
    if single and len(pages) > 1:
        return _stack_of_planes(tif, path, pages)
    volumes = [series for series in tif.series if series.ndim > 2] or tif.series[:1]
    if len(volumes) > 1:
        raise VoxmillError(
            f"{path}: expected one volume, found {len(volumes)} "
            f"({', '.join(str(series.shape) for series in volumes)}). Save one per file."
        )
    series = volumes[0]
    if series.kind in ("generic", "uniform"):  # tifffile groups pages that are alike
        _check_alike(path, pages or walk_pages(path))
    _check_announced(path, tif, series)
    shape, axes = series.get_shape(False), series.get_axes(False)
    stack = Stack(series.pages, series.keyframe, shape, axes, series.dataoffset)
    if series.dataoffset is not None:
        nbytes = math.prod(shape) * series.keyframe.dtype.itemsize
        check_end(path, tif.filehandle.size, series.dataoffset + nbytes)
        return stack
    if not pages:
        walk_pages(path)
    if tif.is_ome and any(page is None for page in stack.pages):
        raise VoxmillError(
            f"{path}: expected {len(stack.pages)} planes as its OME-XML announces, found some "
            "missing. Put all files of the volume into one folder, under their first names."
        )
    _check_ends(path, stack)
    return stack


def _is_single_plane(first: tifffile.TiffPage) -> bool:
    """Whether the file was written plane by plane, each announced as an image of its own."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return len(json.loads(first.shaped_description)["shape"]) == 2
    return False


def _stack_of_planes(tif: tifffile.TiffFile, path: Path, tags: list[PageTags]) -> Stack:
    _check_alike(path, tags)
    tif.pages.useframes = True
    pages = list(tif.pages)
    stack = Stack(pages, pages[0], (len(pages), *pages[0].shape), "I" + pages[0].axes, None)
    _check_ends(path, stack)
    return stack


def _check_alike(path: Path, pages: list[PageTags]) -> None:
    """Refuse odd pages: tifffile would leave them out of the stack, and a plane be lost."""
    for index, page in enumerate(pages):
        if page.layout != pages[0].layout:
            raise VoxmillError(
                f"{path}: expected pages of one shape and type, found {pages[0]} and, as page "
                f"{index}, {page}. Save one volume per file."
            )


def _check_announced(path: Path, tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> None:
    """Refuse a stack whose description tifffile disbelieved because planes are missing."""
    plane = max(1, math.prod(series.keyframe.shape))
    found, announced = math.prod(series.get_shape(False)) // plane, 0
    if series.kind == "shaped":
        announced = math.prod(json.loads(series.keyframe.shaped_description)["shape"]) // plane
    elif tif.is_imagej and series.kind != "imagej":
        announced = (tif.imagej_metadata or {}).get("images", 1)
    if announced > found:
        raise VoxmillError(
            f"{path}: truncated: its description announces {announced} planes, found {found}. "
            "Copy or write the file again."
        )


def walk_pages(path: Path) -> list[PageTags]:
    """Layout of every page, by following the chain of page headers to its end."""
    try:
        with open(path, "rb", buffering=4096) as file:
            return list(read_pages(file))
    except ValueError as error:
        raise VoxmillError(
            f"{path}: truncated or damaged: expected a whole TIFF, found {error}. Copy or write "
            "the file again."
        ) from None


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
