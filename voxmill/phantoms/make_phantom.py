"""Synthetic light-sheet volumes whose cells are known exactly; they are difficult on purpose.

They contain what makes cell detection hard in cleared tissue: layers of different density, tilted
ellipsoids of varied size and brightness with process stubs, some with a dark nucleus, touching
neighbours, fibres and specks that are not cells, dark vessels, a slowly varying background, shadows
of the light sheet (stripes), loss of light with depth, blur that is stronger along the optical
axis, photon and camera noise. Every true cell is brighter than its surroundings by more than the
noise: the task is to tell cells from other structures, not to find invisible ones.
"""

from pathlib import Path

import numpy as np
from scipy import ndimage

from voxmill.config.phantoms import PhantomSettings
from voxmill.phantoms import parts
from voxmill.runtime.files import write_text
from voxmill.runtime.jobs import job
from voxmill.volumes import write_planes

__all__ = ["PhantomSettings", "draw_labelled", "draw_phantom", "make_phantom", "write_truth"]


def draw_phantom(settings: PhantomSettings) -> tuple[np.ndarray, np.ndarray]:
    """Draw a phantom and the positions of its cells; see `draw_labelled`."""
    return draw_labelled(settings)[:2]


def draw_labelled(settings: PhantomSettings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw a phantom, the positions of its cells and their voxels.

    Returns
    -------
    volume : (z, y, x) uint16 array
        Grey values.
    truth : (N, 3) float array
        Centres of all cells in voxels, z, y, x; a face of the volume cuts the cells near it.
    labels : (z, y, x) uint32 array
        1 + row in `truth` of the cell that a voxel belongs to, 0 for none.
    """
    rng = np.random.default_rng(settings.seed)
    size = np.array(settings.voxel_size_um)
    extent = np.array(settings.shape_vox) * size
    vessels = parts.vessels(rng, settings, extent)
    centres, radii = parts.place_cells(rng, settings, extent, vessels)
    light = np.zeros(settings.shape_vox, np.float32)
    labels = parts.draw_cells(light, rng, settings, centres, radii)
    parts.draw_fibres(light, rng, settings, extent)
    parts.draw_specks(light, rng, settings, extent)
    light *= np.float32(settings.signal_photons)
    light += parts.background(rng, settings, extent)
    parts.darken_vessels(light, settings, vessels)
    light = ndimage.gaussian_filter(light, np.array(settings.blur_um) / size, mode="nearest")
    light *= parts.illumination(rng, settings)
    noisy = rng.poisson(np.maximum(light, 0)).astype(np.float32)
    noisy += rng.standard_normal(noisy.shape, np.float32) * settings.read_noise + settings.offset
    truth = centres / size - 0.5
    return np.clip(np.rint(noisy), 0, 65535).astype(np.uint16), truth, labels


@job(outputs=("volume_path", "truth_path", "labels_path"))
def make_phantom(
    *,
    volume_path: str | Path,
    truth_path: str | Path,
    settings: dict,
    labels_path: str | Path | None = None,
) -> None:
    """Write a phantom as an OME-TIFF with its voxel size, and its cells as a CSV.

    Parameters
    ----------
    volume_path, truth_path : path
        The volume, and the table with columns z_vox, y_vox, x_vox.
    labels_path : path, optional
        The voxels of each cell: row of the table, from 1.
    settings : dict
        Keys of `PhantomSettings`; missing ones have their defaults.

    Raises
    ------
    VoxmillError
        If a setting is unknown or out of range.
    """
    checked = PhantomSettings.from_dict(settings)
    volume, truth, labels = draw_labelled(checked)
    write_planes(volume_path, volume, volume.shape, volume.dtype, checked.voxel_size_um)
    write_truth(truth_path, truth)
    if labels_path is not None:
        write_planes(labels_path, labels, labels.shape, labels.dtype, checked.voxel_size_um, "zlib")


def write_truth(path: str | Path, truth: np.ndarray) -> None:
    """Write centres of cells, (N, 3) voxels z, y, x, as a CSV with columns z_vox, y_vox, x_vox."""
    rows = "".join(f"{z:.3f},{y:.3f},{x:.3f}\n" for z, y, x in truth)
    write_text(path, "z_vox,y_vox,x_vox\n" + rows)
