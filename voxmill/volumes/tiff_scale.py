"""The voxel size in the metadata of a TIFF file."""

import html
import json
import re
from collections.abc import Sequence
from typing import Any

import tifffile

from voxmill.volumes.header import to_micrometres

_RESOLUTION_UNITS = {2: "inch", 3: "cm"}


def voxel_size(tif: tifffile.TiffFile) -> tuple[tuple[float, float, float] | None, str]:
    """Voxel size (z, y, x) in micrometres, or None, and where it is from or why it is unknown.

    OME-XML and ImageJ metadata hold all three edges. Bare resolution tags hold y and x alone; z is
    then read from `spacing` and `unit` in a JSON description (tifffile), or unknown.
    """
    if tif.is_ome:
        return _ome(tif.ome_metadata or "")
    if tif.is_imagej:
        metadata = tif.imagej_metadata or {}
        units = [metadata.get("unit")] * 3
        units[:2] = [metadata.get("zunit", units[0]), metadata.get("yunit", units[0])]
        y_per_unit, x_per_unit = _resolution(tif)
        edges = (metadata.get("spacing"), y_per_unit, x_per_unit)
        return _checked(edges, units, "ImageJ metadata")
    metadata = _json(tif.pages.first.description)
    if "voxel_size_um" in metadata:
        size = metadata["voxel_size_um"]
        return (tuple(size), "voxmill metadata") if size else (None, "voxmill metadata: none")
    unit = metadata.get("unit")
    tag = tif.pages.first.tags.valueof(296, 1)
    lateral = _RESOLUTION_UNITS.get(int(tag), unit)
    y_per_unit, x_per_unit = _resolution(tif)
    edges = (metadata.get("spacing"), y_per_unit, x_per_unit)
    return _checked(edges, [unit, lateral, lateral], "TIFF resolution tags")


def _ome(xml: str) -> tuple[tuple[float, float, float] | None, str]:
    pixels = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", xml)
    attributes = dict(re.findall(r'(\w+)="([^"]*)"', pixels.group(0))) if pixels else {}
    edges = [attributes.get(f"PhysicalSize{axis}") for axis in "ZYX"]
    units = [html.unescape(attributes.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "ZYX"]
    return _checked(edges, units, "OME-XML")


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
) -> tuple[tuple[float, float, float] | None, str]:
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
