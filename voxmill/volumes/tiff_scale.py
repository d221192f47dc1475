"""The voxel size in the metadata of a TIFF file."""

import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.header import VoxelSizeUm, check_voxel_size, to_micrometres

_ATTRIBUTE = re.compile(r"(\w+)\s*=\s*([\"'])(.*?)\2")
_STRAIGHT_LINE, _NO_FUNCTION = 0, 20
_RESOLUTION_UNITS = {2: "inch", 3: "cm"}


def voxel_size(
    tif: tifffile.TiffFile, shape: tuple[int, int, int]
) -> tuple[VoxelSizeUm | None, str]:
    """Voxel size (z, y, x) in micrometres, or None, and where it is from or why it is unknown.

    `shape` (z, y, x) tells the volume from other images of an OME-TIFF.

    OME-XML and ImageJ metadata hold all three edges. Bare resolution tags hold y and x alone; z is
    then read from `spacing` and `unit` in a JSON description (tifffile), or unknown.
    """
    if tif.is_ome:
        return _ome(tif.ome_metadata or "", shape)
    if tif.is_imagej:
        metadata = tif.imagej_metadata or {}
        units = [metadata.get("unit")] * 3
        units[:2] = [metadata.get("zunit", units[0]), metadata.get("yunit", units[0])]
        y_per_unit, x_per_unit = _resolution(tif)
        if "spacing" not in metadata and None not in (y_per_unit, to_micrometres(units[1])):
            return None, (
                "ImageJ metadata: no spacing of the planes, which ImageJ leaves out if it is 1 "
                f"{units[0]}, and other programs if they don't know it"
            )
        edges = (metadata.get("spacing"), y_per_unit, x_per_unit)
        return _checked(edges, units, "ImageJ metadata")
    metadata = _json(tif.pages.first.description)
    if "voxel_size_um" in metadata:
        size = metadata["voxel_size_um"]
        try:
            return check_voxel_size("", size), "voxmill metadata"
        except VoxmillError:
            return None, f"voxmill metadata: voxel_size_um is {size}"
    unit = metadata.get("unit")
    tag = tif.pages.first.tags.valueof(296, 1)
    lateral = _RESOLUTION_UNITS.get(int(tag), unit)
    y_per_unit, x_per_unit = _resolution(tif)
    edges = (metadata.get("spacing"), y_per_unit, x_per_unit)
    return _checked(edges, [unit, lateral, lateral], "TIFF resolution tags")


def _ome(xml: str, shape: tuple[int, int, int]) -> tuple[VoxelSizeUm | None, str]:
    """Voxel size of the image of this shape: an overview in the same file has its own."""
    images = [
        {key: html.unescape(value) for key, _, value in _ATTRIBUTE.findall(pixels)}
        for pixels in re.findall(r"<(?:\w+:)?Pixels\b([^>]*)>", xml)
    ]
    sides = {"Z": shape[0], "Y": shape[1], "X": shape[2]}
    for axes in ("ZYX", "YX"):  # planes may be called time points
        wanted = {f"Size{axis}": str(sides[axis]) for axis in axes}
        same = [i for i in images if all(i.get(key) == value for key, value in wanted.items())]
        if same:
            break
    found = [_checked(*_ome_edges(image), "OME-XML") for image in same or images or [{}]]
    if len(set(found)) > 1:
        sizes = sorted({str(size or source) for size, source in found})
        return None, f"OME-XML: {len(found)} images of several voxel sizes, {'; '.join(sizes)}"
    return found[0]


def _ome_edges(image: dict[str, str]) -> tuple[list[str | None], list[str]]:
    edges = [image.get(f"PhysicalSize{axis}") for axis in "ZYX"]
    return edges, [image.get(f"PhysicalSize{axis}Unit", "µm") for axis in "ZYX"]


def calibration(path: Path, tif: tifffile.TiffFile) -> tuple[float, float] | None:
    """Slope and intercept of the values that ImageJ stores as signed 16 bit, else None.

    ImageJ has no signed numbers: it stores them 32768 larger, with a calibration function. Other
    straight lines that rise are left out: they change no contrast.

    Raises
    ------
    VoxmillError
        If the calibration bends or inverts the grey values.
    """
    metadata = (tif.imagej_metadata or {}) if tif.is_imagej else {}
    function = metadata.get("cf", _NO_FUNCTION)
    if function == _NO_FUNCTION:
        return None
    intercept, slope = (float(metadata.get(key, 0)) for key in ("c0", "c1"))
    if function != _STRAIGHT_LINE or not slope > 0:
        raise VoxmillError(
            f"{path}: expected grey values, found numbers with a calibration that bends or inverts "
            f"them (ImageJ: cf={function}, c1={metadata.get('c1')}). Apply it in Fiji with Image > "
            "Type > 32-bit, or remove it with Analyze > Calibrate > Function: None."
        )
    signed = (slope, intercept) == (1, -32768) and tif.pages.first.dtype == np.uint16
    return (slope, intercept) if signed else None


def _resolution(tif: tifffile.TiffFile) -> tuple[float | None, float | None]:
    """Lengths of a pixel (y, x) in the file's unit of length."""
    edges = []
    for tag in (283, 282):  # YResolution, XResolution: pixels per unit
        value = tif.pages.first.tags.valueof(tag)
        pixels, length = value if isinstance(value, tuple) else (value, 1)
        edges.append(length / pixels if pixels else None)
    y, x = edges
    return y, x


def _checked(
    edges: Sequence[Any], units: Sequence[str | None], source: str
) -> tuple[VoxelSizeUm | None, str]:
    size = []
    for axis, edge, unit in zip("zyx", edges, units, strict=True):
        scale = to_micrometres(unit)
        try:
            length = abs(float(edge)) * (scale or 0.0)
        except (TypeError, ValueError):
            length = 0.0
        if not 0 < length < float("inf"):
            return None, f"{source}: no length along {axis} (found {edge}, unit {unit})"
        # Rational tags hold 32 bits: more digits than these are noise.
        size.append(float(f"{length:.9g}"))
    z, y, x = size
    return (z, y, x), source


def _json(description: str) -> dict:
    try:
        content = json.loads(description)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
