"""Write cells for other programs."""

import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from voxmill.cells.neuroglancer import Layer, write_annotations, write_state
from voxmill.cells.point_files import (
    write_brainglobe_points,
    write_imagej_points,
    write_napari_points,
)
from voxmill.cells.table import read_cells
from voxmill.geometry import VoxelSize
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.jobs import job, logger


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
    labels : dict of str to str
        Paths of label volumes (OME-Zarr) by layer name.
    url : str
        Where a server hands out the working directory.
    """

    shape: Sequence[int]
    size: VoxelSize
    images: Mapping[str, str]
    labels: Mapping[str, str]
    url: str


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
    for kind, paths in (("image", scene.images), ("segmentation", scene.labels)):
        for name, path in paths.items():
            # A server hands out one folder; the link brings what lies elsewhere into it.
            os.symlink(Path(path).absolute(), folder / name)
            layers.append(Layer(name, kind, f"{base}/{name}"))
    write_state(folder / "state.json", layers, f"{base}/cells", scene.size)


EXPORTS: dict[str, Callable[[Path, Path, pd.DataFrame, Scene], None]] = {
    "napari": _napari,
    "brainglobe": _brainglobe,
    "neuroglancer": _neuroglancer,
    "fiji": _fiji,
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
    labels: Mapping[str, str],
    url: str,
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
    shape, voxel_size_um, images, labels, url
        As of `Scene`. Images that are no OME-Zarr are left out.

    Raises
    ------
    VoxmillError
        If the table is missing or broken, or the format is unknown.
    """
    if format not in EXPORTS:
        raise VoxmillError(f"export: expected one of {', '.join(EXPORTS)}, found {format!r}.")
    cells = read_cells(cells_path)
    scene = Scene(shape, VoxelSize.of(voxel_size_um), images, labels, url)
    final = Path(output_folder)
    scratch = final.with_name(f".{final.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    EXPORTS[format](scratch, final, cells, scene)
    shutil.rmtree(final, ignore_errors=True)
    scratch.rename(final)
    logger.info("%s: %d cells for %s", output_folder, len(cells), format)
