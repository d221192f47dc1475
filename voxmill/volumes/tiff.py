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
from voxmill.runtime.fetched import why_not_here
from voxmill.volumes.header import VolumeHeader, check_dtype, find_axes
from voxmill.volumes.tiff_pages import PagedWindows, find_planes
from voxmill.volumes.tiff_scale import calibration, voxel_size
from voxmill.volumes.tiff_sets import check_part
from voxmill.volumes.windows import RawWindows, Windows

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# tifffile raises errors of many kinds where a tag holds what it must not hold.
_TIFFFILE_ERRORS = (
    tifffile.TiffFileError,
    struct.error,
    ArithmeticError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
_COLOURS = {"RGB", "YCBCR", "CMYK", "CIELAB", "ICCLAB", "ITULAB", "LOGLUV"}


def matches(path: Path, head: bytes) -> bool:
    """Whether the file begins as a TIFF does."""
    return head[:4] in _MAGIC


def read_header(path: Path, channel: int | None, dtypes: tuple[str, ...]) -> VolumeHeader:
    """Header of a TIFF volume; see `voxmill.volumes.read_header`."""
    with reading(path), _open_tiff(path) as tif:
        series = _checked_series(path, tif)
        page, shape, letters = series.keyframe, series.get_shape(False), series.get_axes(False)
        colour = name_of(page.photometric)
        if colour in _COLOURS and page.samplesperpixel > 1:
            raise VoxmillError(
                f"{path}: expected grey values, found a colour image ({colour}, "
                f"{page.samplesperpixel} samples a voxel). Save the channel that shows the cells "
                "as a grey stack (Fiji: Image > Color > Split Channels)."
            )
        stored = np.dtype(np.int16) if calibration(path, tif) else page.dtype
        dtype = check_dtype(path, stored, dtypes)
        axes = find_axes(path, shape, letters, channel)
        if series.dataoffset is None:
            find_planes(path, series, axes)
        z, y, x = axes.zyx
        size, source = voxel_size(tif, (shape[z], shape[y], shape[x]))
        return VolumeHeader(
            path=str(path),
            format=_format_name(tif),
            shape=(shape[z], shape[y], shape[x]),
            dtype=dtype,
            voxel_size_um=size,
            voxel_size_source=source,
            channel=axes.channel,
            windows=True,
            file_shape=shape,
            file_axes=letters,
        )


def open_windows(header: VolumeHeader) -> Windows:
    """Windows of a TIFF volume: raw reads where nothing is compressed, else page by page.

    The pages are not compared again: `read_header` has done so.
    """
    path = Path(header.path)
    with contextlib.ExitStack() as cleanup:
        cleanup.enter_context(reading(path))
        tif = _open_tiff(path)
        keep = cleanup.enter_context(contextlib.ExitStack())
        keep.callback(tif.close)
        series = _find_series(path, tif)
        shape = series.get_shape(False)
        axes = find_axes(path, shape, series.get_axes(False), header.channel)
        scale = calibration(path, tif)
        if series.dataoffset is None:
            windows = PagedWindows(header, tif, series, find_planes(path, series, axes), scale)
            keep.pop_all()
            return windows
        dtype = series.dtype.newbyteorder(tif.byteorder)
        strides = [dtype.itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        channel_axis, channel = axes.channel_axis, axes.channel
        skip = 0 if channel_axis is None or channel is None else strides[channel_axis] * channel
        zyx = [strides[axis] for axis in axes.zyx]
        return RawWindows(header, dtype, series.dataoffset + skip, zyx, scale)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn errors of a TIFF and of its disk into ones that name it; silence tifffile's log."""
    logger = logging.getLogger("tifffile")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        yield
    except VoxmillError:
        raise
    except OSError as error:
        reason = why_not_here(path) or error.strerror or str(error)
        raise VoxmillError(f"{path}: this file can't be read: {reason}.") from None
    except _TIFFFILE_ERRORS as error:
        if missing := why_not_here(path):
            raise VoxmillError(f"{path}: expected a TIFF, but {missing}.") from None
        raise VoxmillError(
            f"{path}: expected a whole TIFF, found a damaged or truncated one ({error}). Copy or "
            "write the file again."
        ) from None
    finally:
        logger.disabled = was_disabled


def _open_tiff(path: Path) -> tifffile.TiffFile:
    """Open a TIFF; pages that each announce an image of their own are taken for one stack."""
    tif = tifffile.TiffFile(path)
    with contextlib.suppress(ValueError, KeyError, TypeError):
        shape = json.loads(tif.pages.first.shaped_description or "")["shape"]
        if len(shape) == 2 and tif.pages.is_multipage:
            tif.close()
            return tifffile.TiffFile(path, is_shaped=False)
    return tif


def _find_series(path: Path, tif: tifffile.TiffFile) -> tifffile.TiffPageSeries:
    """The pages that make the volume, as tifffile groups them."""
    volumes = [series for series in tif.series if series.ndim > 2] or tif.series[:1]
    if len(volumes) != 1:
        raise VoxmillError(
            f"{path}: expected one volume, found {len(volumes)} "
            f"({', '.join(str(series.shape) for series in volumes)}). Save one per file."
        )
    return volumes[0]


def _checked_series(path: Path, tif: tifffile.TiffFile) -> tifffile.TiffPageSeries:
    """The pages that make the volume; refuse a file that is shorter than it announces."""
    check_part(path, tif)
    first = tif.pages.first
    # Where the metadata hold the shape and the voxels lie in one run, the size alone is checked.
    in_one_run = (first.is_imagej or tif.is_shaped) and first.is_final
    kinds = {} if in_one_run else _page_kinds(path, tif)
    series = _find_series(path, tif)
    if series.kind in ("generic", "uniform"):  # tifffile groups pages that are alike
        _check_alike(path, kinds or _page_kinds(path, tif))
    _check_announced(path, tif, series)
    if series.dataoffset is not None:
        nbytes = math.prod(series.get_shape(False)) * series.dtype.itemsize
        _check_end(path, tif, series.dataoffset + nbytes)
        return series
    if not kinds:
        _page_kinds(path, tif)
    pages = [page for page in series if page is not None]
    if len(pages) < len(series):
        raise VoxmillError(
            f"{path}: expected {len(series)} planes as its OME-XML announces, found some "
            "missing. Put all files of the volume into one folder, under their first names."
        )
    for page in (pages[0], pages[-1]):
        check_voxels(path, page)
    return series


def _page_kinds(path: Path, tif: tifffile.TiffFile) -> dict[int, tuple[int, str]]:
    """Index and description of the first page of each kind; the key is tifffile's hash.

    Every page is parsed, in 60 to 90 microseconds (`benchmarks/tiff_headers.py`): the frames that
    tifffile reads faster have no tags to compare.
    """
    kinds: dict[int, tuple[int, str]] = {}
    seen: set[int] = set()
    for index, page in enumerate(page.aspage() for page in tif.pages):
        if page.offset in seen:
            raise VoxmillError(
                f"{path}: truncated or damaged: expected a whole TIFF, found a page header that "
                "points back. Copy or write the file again."
            )
        seen.add(page.offset)
        if page.hash not in kinds:
            kinds[page.hash] = (
                index,
                f"{page_layout(page)}, {name_of(page.photometric)}, compression "
                f"{name_of(page.compression)} with predictor {int(page.predictor)} in pieces of "
                f"{page.chunks}",
            )
    check_chain(path, tif)
    return kinds


def _check_alike(path: Path, kinds: dict[int, tuple[int, str]]) -> None:
    """Refuse odd pages: tifffile would leave them out of the stack, and a plane be lost."""
    if len(kinds) > 1:
        (_, first), (index, other), *_ = kinds.values()
        raise VoxmillError(
            f"{path}: expected pages of one shape and type, found {first} and, as page {index}, "
            f"{other}. Save one volume per file."
        )


def name_of(code: int) -> str:
    """Name of a compression or photometric code, the number itself where tifffile has no name."""
    return str(getattr(code, "name", code))


def page_layout(page: tifffile.TiffPage) -> str:
    """What must agree among the planes of a volume, in words."""
    return (
        f"width {page.imagewidth}, height {page.imagelength}, bits a sample "
        f"{page.bitspersample}, samples a pixel {page.samplesperpixel}, sample format "
        f"{page.sampleformat}"
    )


def check_chain(path: Path, tif: tifffile.TiffFile) -> None:
    """Refuse a file whose chain of page headers leads out of it; tifffile only logs that."""
    tif.filehandle.seek(tif.pages.next_page_offset or 0)
    following = tif.filehandle.read(tif.tiff.offsetsize)
    if len(following) < tif.tiff.offsetsize or any(following):
        raise VoxmillError(
            f"{path}: truncated or damaged: expected a whole TIFF, found page header "
            f"{len(tif.pages)} incomplete or outside the file. Copy or write the file again."
        )


def _check_announced(path: Path, tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> None:
    """Refuse a stack whose description tifffile disbelieved because planes are missing."""
    plane = max(1, math.prod(series.keyframe.shape))
    found, announced = math.prod(series.get_shape(False)) // plane, 0
    if series.kind == "shaped":
        announced = (
            math.prod(json.loads(series.keyframe.shaped_description or "")["shape"]) // plane
        )
    elif tif.is_imagej and series.kind != "imagej":
        announced = (tif.imagej_metadata or {}).get("images", 1)
    elif series.kind == "ome":
        _check_described(path, tif, series)
    if announced > found:
        raise VoxmillError(
            f"{path}: truncated: its description announces {announced} planes, found {found}. "
            "Copy or write the file again."
        )


def _check_described(path: Path, tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> None:
    """Refuse planes that the OME-XML leaves out; images of other shapes beside them are fine."""
    if sum(map(len, tif.series)) >= len(tif.pages):
        return
    inside = (page for each in tif.series for page in each if page is not None)
    described = {page.offset for page in inside if page.parent is tif}
    left_out = [page.aspage() for page in tif.pages if page.offset not in described]
    if count := sum(page.shape == series.keyframe.shape for page in left_out):
        raise VoxmillError(
            f"{path}: expected that its OME-XML describes all planes, found {count} more planes of "
            f"{series.keyframe.shape} than it does. Write the file again, for example with Fiji."
        )


def check_voxels(path: Path, page: tifffile.TiffPage | tifffile.TiffFrame) -> None:
    """Refuse a page whose strips or tiles lie beyond the end of its file."""
    ends = [a + b for a, b in zip(page.dataoffsets, page.databytecounts, strict=True) if b]
    _check_end(path, page.parent, max(ends, default=0))


def _check_end(path: Path, tif: tifffile.TiffFile, announced: int) -> None:
    if (found := tif.filehandle.size) < announced:
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
