"""Surfaces of labelled cells as PLY files, which Blender, MeshLab, ParaView and libraries read."""

from pathlib import Path

import numpy as np

from voxmill.cells.colours import colour_of
from voxmill.cells.components import find_labels
from voxmill.geometry import Box, VoxelSize
from voxmill.volumes.part import PartOfVolume
from voxmill.volumes.protocols import ReadableVolume

BLOCK_VOX = 128
_VERTEX = np.dtype([("place", "<f4", 3), ("colour", "u1", 3)])
_FACE = np.dtype([("corners", "u1"), ("indices", "<i4", 3)])
_HEADER = """ply
format binary_little_endian 1.0
comment cell {label}, micrometres
element vertex {vertices}
property float x
property float y
property float z
property uchar red
property uchar green
property uchar blue
element face {faces}
property list uchar int vertex_indices
end_header
"""


def write_meshes(
    folder: Path, labels: ReadableVolume, box: Box, size: VoxelSize, origin_um: np.ndarray
) -> int:
    """Write the surface of each cell in a box as {id}.ply.

    The surface is that of `voxmill.cells.measurements.surface_um2`: marching cubes through the
    voxels' steps. Cells that reach beyond the box are cut, and closed, at its faces. Each cell is
    read and written by itself.

    Parameters
    ----------
    folder : path
        An existing folder.
    labels : ReadableVolume
    box : Box
        Voxels of the labels.
    size : VoxelSize
        Of the labels.
    origin_um : (3,) float array
        Place of the labels' first voxel, z, y, x.

    Returns
    -------
    int
        How many surfaces were written.

    Raises
    ------
    VoxmillError
        If a value is no label.
    """
    from skimage.measure import marching_cubes  # slow to import

    part = PartOfVolume(labels, box)
    regions = find_labels(part, BLOCK_VOX)
    for label, lower, upper in zip(regions.peaks, regions.lower, regions.upper, strict=True):
        window = part.read_window(tuple(lower), tuple(upper + 1))
        mask = np.pad(window == label, 1).astype(np.float32)
        places, faces, _, _ = marching_cubes(mask, 0.5)
        first = lower + box.start - 1
        places_um = origin_um + size.to_um(places + first)
        _write_ply(folder / f"{int(label)}.ply", int(label), places_um, faces)
    return len(regions.counts)


def _write_ply(path: Path, label: int, places_um: np.ndarray, faces: np.ndarray) -> None:
    vertices, triangles = np.zeros(len(places_um), _VERTEX), np.zeros(len(faces), _FACE)
    vertices["place"] = places_um[:, ::-1]
    vertices["colour"] = colour_of(label)
    triangles["corners"] = 3
    triangles["indices"] = faces
    header = _HEADER.format(label=label, vertices=len(vertices), faces=len(triangles))
    path.write_bytes(header.encode() + vertices.tobytes() + triangles.tobytes())
