"""Markers in XML, as cellfinder and Fiji's Cell Counter write them."""

import logging
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from voxmill.config.volumes import MARKERS
from voxmill.evaluation.point_columns import TruthReading
from voxmill.geometry import VoxelSize
from voxmill.runtime.errors import VoxmillError

logger = logging.getLogger(__name__)

MAX_MARKER_BYTES = 128 << 20
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
"""A number with a decimal point or none."""


def read_markers(path: Path, size: VoxelSize, reading: TruthReading) -> np.ndarray:
    """Markers in XML, as cellfinder and Fiji's Cell Counter write them.

    Both write voxels. cellfinder counts from 0, writes "placeholder.tif" as the image, and gives
    cells the type 2 and all else the type 1 (brainglobe-utils, `IO/cells.py` and
    `cells/cells.py`). The Cell Counter writes the number of the slice, from 1. The configuration
    must say which of them it is.
    """
    if reading.offset_vox is None:
        raise VoxmillError(f"{path}: this ground truth holds {MARKERS}.")
    if reading.columns is not None or reading.units == "um":
        raise VoxmillError(f"{path}: markers are in voxels; leave `columns` and `units` out.")
    if path.stat().st_size > MAX_MARKER_BYTES:
        raise VoxmillError(
            f"{path}: expected markers of at most {MAX_MARKER_BYTES >> 20} MiB. Save them as CSV."
        )
    try:
        by_type, image = _parse_markers(path)
    except ElementTree.ParseError as error:
        raise VoxmillError(
            f"{path}: expected markers in XML, found a damaged file ({error}). Write it again, or "
            "save the points as CSV."
        ) from None
    filled = {name: points for name, points in by_type.items() if points}
    if image == "placeholder.tif":
        others = sum(len(points) for name, points in filled.items() if name != "2")
        if others and "2" not in filled:
            raise VoxmillError(
                f"{path}: expected markers of type 2 (cells), found {others} of other types: "
                "candidates that were not classified. Save the cells among them as CSV."
            )
        if others:
            logger.warning("%s: %d markers that are no cells are left out", path, others)
        filled = {name: points for name, points in filled.items() if name == "2"}
    if len(filled) > 1:
        raise VoxmillError(
            f"{path}: expected markers of one type, found the types {', '.join(filled)}. Save "
            "those that are cells as CSV with the columns z_vox,y_vox,x_vox."
        )
    return np.array([p for points in filled.values() for p in points], dtype=float).reshape(-1, 3)


def _parse_markers(path: Path) -> tuple[dict[str, list[list[float]]], str]:
    """Markers (z, y, x) by type, and the name of the image."""
    by_type: dict[str, list[list[float]]] = {}
    kind, image, root = "", "", None
    for _, element in ElementTree.iterparse(path, events=("end",)):
        root = element
        if element.tag == "Image_Filename":
            image = (element.text or "").strip()
        elif element.tag == "Type":
            kind = (element.text or "").strip()
        elif element.tag == "Marker":
            texts = [(element.findtext(f"Marker{axis}") or "").strip() for axis in "ZYX"]
            if not all(NUMBER.fullmatch(text) for text in texts):
                raise VoxmillError(
                    f"{path}: expected numbers in MarkerZ, MarkerY and MarkerX, found {texts}."
                )
            by_type.setdefault(kind, []).append([float(text) for text in texts])
            element.clear()
    if root is None or root.tag != "CellCounter_Marker_File":
        found = "nothing" if root is None else root.tag
        raise VoxmillError(
            f"{path}: expected XML of CellCounter_Marker_File, found {found}. Save the points as "
            "CSV with the columns z_vox,y_vox,x_vox."
        )
    return by_type, image
