"""Cells as points in files of other programs."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import roifile

from voxmill.cells.table import PLACE, PLACE_UM

_CELL = 2
"""cellfinder's type of a cell; 1 is a candidate that was rejected."""


def write_napari_points(folder: Path, cells: pd.DataFrame) -> None:
    """Write cells.csv, a points layer of napari: places in micrometres, the rest as properties.

    napari shows an OME-Zarr in micrometres too, so that points and image lie on each other; over an
    image without a scale, the layer's `scale` is to be one over the voxel size.

    Parameters
    ----------
    folder : path
        An existing folder.
    cells : pandas.DataFrame
        As `voxmill.cells.table.read_cells` gives it.
    """
    points = cells[PLACE_UM].set_axis([f"axis-{axis}" for axis in range(3)], axis=1)
    points.insert(0, "index", np.arange(len(points)))
    others = cells.drop(columns=PLACE_UM)
    pd.concat([points, others], axis=1).to_csv(
        folder / "cells.csv", index=False, lineterminator="\n"
    )


def write_brainglobe_points(folder: Path, cells: pd.DataFrame) -> None:
    """Write cells.xml, as cellfinder and brainmapper read it, and points.csv.

    The XML holds whole voxels: places are rounded to the nearest (half to even), and cells of the
    first plane are kept. The table holds x, y, z in voxels with their decimals, and the type, as
    `brainglobe_utils.IO.cells.cells_to_csv` writes them.

    Parameters
    ----------
    folder : path
        An existing folder.
    cells : pandas.DataFrame
        As `voxmill.cells.table.read_cells` gives it.
    """
    root = ElementTree.Element("CellCounter_Marker_File")
    image = ElementTree.SubElement(root, "Image_Properties")
    ElementTree.SubElement(image, "Image_Filename").text = "placeholder.tif"
    data = ElementTree.SubElement(root, "Marker_Data")
    ElementTree.SubElement(data, "Current_Type").text = "1"
    markers = ElementTree.SubElement(data, "Marker_Type")
    ElementTree.SubElement(markers, "Type").text = str(_CELL)
    for place in np.rint(cells[PLACE].to_numpy()).astype(int):
        marker = ElementTree.SubElement(markers, "Marker")
        for axis, value in zip("XYZ", place[::-1], strict=True):
            ElementTree.SubElement(marker, f"Marker{axis}").text = str(value)
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(
        folder / "cells.xml", encoding="UTF-8", xml_declaration=True
    )
    table = cells[PLACE[::-1]].set_axis(["x", "y", "z"], axis=1)
    table.assign(type=_CELL).to_csv(folder / "points.csv", index=False, lineterminator="\n")


def write_imagej_points(folder: Path, cells: pd.DataFrame) -> None:
    """Write cells.roi, one multi-point selection of ImageJ: File > Open over the open stack.

    A point lies in the plane nearest to its cell. ImageJ counts planes from 1 and places from a
    pixel's corner, so that half a pixel is added to x and y.

    Parameters
    ----------
    folder : path
        An existing folder.
    cells : pandas.DataFrame
        As `voxmill.cells.table.read_cells` gives it.

    Notes
    -----
    Without cells the folder stays empty: ImageJ knows no selection without points.
    """
    if not len(cells):
        return
    places = cells[PLACE].to_numpy()
    roi = roifile.ImagejRoi.frompoints(places[:, :0:-1] + 0.5, name="cells")
    roi.roitype = roifile.ROI_TYPE.POINT
    roi.counters = np.zeros(len(places), np.uint8)
    roi.counter_positions = np.rint(places[:, 0]).astype(np.uint32) + 1
    roi.tofile(str(folder / "cells.roi"))
