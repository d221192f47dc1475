"""A folder of 2D TIFF planes, as light-sheet microscopes write them."""

from pathlib import Path

import numpy as np
import tifffile

from voxmill.runtime.errors import VoxmillError
from voxmill.volumes import tiff
from voxmill.volumes.header import VolumeHeader, check_dtype
from voxmill.volumes.plane_names import order_planes, tiff_names
from voxmill.volumes.tiff_pages import read_page
from voxmill.volumes.tiff_scale import calibration
from voxmill.volumes.windows import Windows, rescale


def matches(path: Path, head: bytes) -> bool:
    """Whether the path is a folder."""
    return path.is_dir()


def read_header(
    path: Path, channel: int | None, dtypes: tuple[str, ...], pattern: str | None = None
) -> VolumeHeader:
    """Header of a folder of planes; see `voxmill.volumes.read_header`.

    The header of every plane is read, to compare them: about 0.2 ms a plane.
    """
    names, chosen = order_planes(path, tiff_names(path), channel, pattern)
    first = path / names[0]
    with tiff.reading(first), tifffile.TiffFile(first) as tif:
        page = tif.pages.first
        if page.samplesperpixel > 1:
            raise VoxmillError(
                f"{first}: expected grey planes, found {page.samplesperpixel} samples a pixel "
                f"({tiff.name_of(page.photometric)}). Save the channel that shows the cells as "
                "grey planes."
            )
        scale = calibration(first, tif)
        dtype = check_dtype(first, np.dtype(np.int16) if scale else page.dtype, dtypes)
        shape = (len(names), page.imagelength, page.imagewidth)
    if len(names) == 1:
        raise VoxmillError(
            f"{path}: expected the planes of a 3D volume, found a 2D image: {names[0]} alone."
        )
    _check_planes(path, names)
    return VolumeHeader(
        path=str(path),
        format="folder of TIFF planes",
        shape=shape,
        dtype=dtype,
        voxel_size_um=None,
        voxel_size_source="folder of TIFF planes: no distance between planes",
        channel=chosen,
        windows=True,
        file_shape=shape,
        file_axes="ZYX",
        pattern=pattern,
    )


def open_windows(header: VolumeHeader) -> Windows:
    """Windows of a folder of planes."""
    return FolderWindows(header)


class FolderWindows(Windows):
    """Windows of a folder of planes; the file of a plane is open only while it is read."""

    def __init__(self, header: VolumeHeader):
        super().__init__(header)
        self._names = plane_names(header)
        if len(self._names) != header.shape[0]:
            raise VoxmillError(
                f"{header.path}: expected {header.shape[0]} planes, found {len(self._names)}: the "
                "folder has changed since its header was read. Run again."
            )

    def _plane(self, z: int, rows: slice, columns: slice) -> np.ndarray:
        path = Path(self.header.path) / self._names[z]
        with tiff.reading(path), tifffile.TiffFile(path) as tif:
            page, scale = tif.pages.first, calibration(path, tif)
            dtype = np.dtype(np.int16) if scale else page.dtype
            if (page.imagelength, page.imagewidth) != self.shape[1:] or dtype != self.dtype:
                raise VoxmillError(
                    f"{path}: expected a plane of {self.shape[1:]} (y, x) {self.dtype}, found "
                    f"{(page.imagelength, page.imagewidth)} {dtype}."
                )
            return rescale(read_page(page, rows, columns, 0, path, z), scale)


def plane_names(header: VolumeHeader) -> list[str]:
    """Names of the planes of a folder, plane 0 first."""
    path = Path(header.path)
    return order_planes(path, tiff_names(path), header.channel, header.pattern)[0]


def _check_planes(path: Path, names: list[str]) -> None:
    """Refuse planes that differ, are truncated, or share a file with others."""
    first = ""
    for name in names:
        file = path / name
        with tiff.reading(file), tifffile.TiffFile(file) as tif:
            if (count := len(tif.pages)) > 1:
                raise VoxmillError(
                    f"{file}: expected one plane, found {count} pages. A folder holds one plane a "
                    "file; a file with all planes is given by itself."
                )
            page = tif.pages.first
            layout = tiff.page_layout(page)
            if calibration(file, tif):
                layout += ", calibrated by ImageJ as signed"
            if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
                layout += ", 0 is white"
            first = first or layout
            if layout != first:
                raise VoxmillError(
                    f"{file}: expected a plane as {names[0]} ({first}), found {layout}. All planes "
                    "of a folder need one shape and type."
                )
            tiff.check_chain(file, tif)
            tiff.check_voxels(file, page)
