"""Write cells for other programs."""

import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from voxmill.cells.mesh_files import write_meshes
from voxmill.cells.neuroglancer import Layer, write_annotations, write_state
from voxmill.cells.outline_files import write_outlines
from voxmill.cells.point_files import (
    write_brainglobe_points,
    write_imagej_points,
    write_napari_points,
)
from voxmill.cells.table import read_cells
from voxmill.geometry import Box, Resampling, VoxelSize
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.jobs import job, logger
from voxmill.volumes import LABEL_DTYPES, Windows, check_source, open_volume, read_header
from voxmill.volumes.copied import write_copy


@dataclass(frozen=True)
class Scene:
    """What lies around the cells, for programs that show all of it.

    Parameters
    ----------
    shape : (3,) int
        Of the volume, voxels, z, y, x.
    size : VoxelSize
    images : dict of str to str
        Paths of images (OME-Zarr) by layer name.
    labels : path or None
        The image of labels (OME-Zarr), if there is one.
    url : str
        Where a server hands out the working directory.
    box : str or None
        The part of the labels whose outlines or surfaces are wanted, "z0:z1, y0:y1, x0:x1" in
        voxels of the volume; None for all of it.
    copied : dict or None
        Arguments of `voxmill.volumes.read_header` for a volume that is to be copied as OME-Zarr.
    """

    shape: Sequence[int]
    size: VoxelSize
    images: Mapping[str, str]
    labels: Path | None
    url: str
    box: str | None = None
    copied: Mapping[str, Any] | None = None


def _napari(folder: Path, final: Path, cells: pd.DataFrame, scene: Scene) -> None:
    write_napari_points(folder, cells)


def _brainglobe(folder: Path, final: Path, cells: pd.DataFrame, scene: Scene) -> None:
    write_brainglobe_points(folder, cells)


def _fiji(folder: Path, final: Path, cells: pd.DataFrame, scene: Scene) -> None:
    write_imagej_points(folder, cells)


def _neuroglancer(folder: Path, final: Path, cells: pd.DataFrame, scene: Scene) -> None:
    (folder / "cells").mkdir()
    write_annotations(folder / "cells", cells, scene.shape, scene.size)
    base = f"{scene.url.rstrip('/')}/{quote(final.as_posix())}"
    layers = []
    if scene.copied is not None:
        with open_volume(read_header(**scene.copied)) as volume:
            shown = write_copy(folder / "image", volume, "image")
        layers.append(Layer("image", "image", f"{base}/image", shown))
    labels = {"labels": str(scene.labels)} if scene.labels else {}
    for kind, paths in (("image", scene.images), ("segmentation", labels)):
        for name, path in paths.items():
            # A server hands out one folder; the link brings what lies elsewhere into it.
            os.symlink(Path(path).absolute(), folder / name)
            layers.append(Layer(name, kind, f"{base}/{name}"))
    write_state(folder / "state.json", layers, f"{base}/cells", scene.size)


def _rois(folder: Path, final: Path, cells: pd.DataFrame, scene: Scene) -> None:
    with _labels_of(scene) as labels:
        write_outlines(folder / "cells.zip", labels, _box_of(scene, labels))


def _meshes(folder: Path, final: Path, cells: pd.DataFrame, scene: Scene) -> None:
    with _labels_of(scene) as labels:
        grid = _resampling(scene, labels)
        size = VoxelSize.of(labels.header.voxel_size_um)
        write_meshes(folder, labels, _box_of(scene, labels), size, grid.origin_um)


def _labels_of(scene: Scene) -> Windows:
    if scene.labels is None:
        raise VoxmillError("export: expected the image of labels for outlines and surfaces.")
    return open_volume(read_header(scene.labels, dtypes=LABEL_DTYPES))


def _box_of(scene: Scene, labels: Windows) -> Box:
    """The wanted box in voxels of the labels."""
    if scene.box is None:
        return Box.from_shape(labels.shape)
    z, y, x = scene.shape
    try:
        box = Box.parse(scene.box, (z, y, x))
    except VoxmillError as error:
        raise VoxmillError(f"export.{error}") from None
    return _resampling(scene, labels).covering(box)


def _resampling(scene: Scene, labels: Windows) -> Resampling:
    """From the volume's voxels to the labels', which are the same unless it is resampled."""
    z, y, x = scene.shape
    return Resampling((z, y, x), scene.size, VoxelSize.of(labels.header.voxel_size_um))


EXPORTS: dict[str, Callable[[Path, Path, pd.DataFrame, Scene], None]] = {
    "napari": _napari,
    "brainglobe": _brainglobe,
    "neuroglancer": _neuroglancer,
    "fiji": _fiji,
    "rois": _rois,
    "meshes": _meshes,
}
"""By format: writes into a folder, which becomes `final` once it is whole."""


@job(outputs=("output_folder",))
def export_cells(
    *,
    format: str,
    cells_path: str,
    output_folder: str,
    shape: Sequence[int],
    voxel_size_um: Iterable[float],
    images: Mapping[str, str],
    url: str,
    labels_path: str | None = None,
    box: str | None = None,
    copied: Mapping[str, Any] | None = None,
    copied_path: str | None = None,
    fingerprint: str | None = None,
) -> None:
    """Write the cells of one network for another program.

    Parameters
    ----------
    format : str
        One of `EXPORTS`.
    cells_path : path
        cells.csv.
    output_folder : path
        Made anew; relative to the working directory for Neuroglancer's addresses to be right.
    shape, voxel_size_um, images, url, box, copied
        As of `Scene`.
    copied_path : path, optional
        The volume that is copied.
    fingerprint : str, optional
        Of that volume when the run was planned; another one is refused.
    labels_path : path, optional
        The `zarr.json` of the image of labels: for outlines and surfaces, and for Neuroglancer.

    Raises
    ------
    VoxmillError
        If an input is missing or broken, the format is unknown, or the box is no part of the
        volume.
    """
    if format not in EXPORTS:
        raise VoxmillError(f"export: expected one of {', '.join(EXPORTS)}, found {format!r}.")
    cells = read_cells(cells_path)
    labels = Path(labels_path).parent if labels_path else None
    scene = Scene(shape, VoxelSize.of(voxel_size_um), images, labels, url, box, copied)
    final = Path(output_folder)
    scratch = final.with_name(f".{final.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    EXPORTS[format](scratch, final, cells, scene)
    if copied is not None:
        check_source(read_header(**copied), fingerprint)
    shutil.rmtree(final, ignore_errors=True)
    scratch.rename(final)
    logger.info("%s: %d cells for %s", output_folder, len(cells), format)
