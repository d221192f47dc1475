"""The voxel size in a NIfTI header."""

import math
from typing import Any

import numpy as np

from voxmill.volumes.header import VolumeAxes, VoxelSizeUm

UNITS_UM = {1: 1e6, 2: 1e3, 3: 1.0}
"""Micrometres per NIfTI unit of length: metre, millimetre, micrometre."""


def voxel_size(header: Any, axes: VolumeAxes) -> tuple[VoxelSizeUm | None, str]:
    """Voxel size (z, y, x) in micrometres, or None, and where it is from or why it is unknown."""
    unit = int(header["xyzt_units"]) & 7
    zooms = [float(header["pixdim"][1 + axis]) for axis in axes.zyx]
    if unit not in UNITS_UM or not all(math.isfinite(z) and z > 0 for z in zooms):
        return None, f"NIfTI: no length (pixdim {zooms} z, y, x; xyzt_units {unit})"
    # pixdim is float32: more digits than these are noise.
    z, y, x = (float(f"{zoom * UNITS_UM[unit]:.7g}") for zoom in zooms)
    steps = _affine_steps(header, axes)
    if steps is not None and not np.allclose(steps, zooms, rtol=0.01):
        return None, (
            f"NIfTI: pixdim {zooms} and the lengths of sform's axes {[float(s) for s in steps]} "
            "disagree (z, y, x)"
        )
    return (z, y, x), "NIfTI pixdim"


def _affine_steps(header: Any, axes: VolumeAxes) -> np.ndarray | None:
    """Edge lengths of a voxel (z, y, x) by the sform, in the file's unit; None without one."""
    if int(header["sform_code"]) <= 0 or max(axes.zyx) > 2:
        return None
    rows = np.array([header[f"srow_{row}"][:3] for row in "xyz"], float)
    steps: np.ndarray = np.linalg.norm(rows, axis=0)[list(axes.zyx)]
    # All zeros: some writers set the code alone.
    return None if np.isfinite(steps).all() and not steps.any() else steps
