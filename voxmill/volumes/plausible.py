"""Is a voxel size one that a microscope makes: the mistakes of units and of axis order."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from voxmill.runtime.errors import VoxmillError
from voxmill.volumes import read_header, source_choices
from voxmill.volumes.header import VolumeHeader, with_voxel_size

USUAL_UM = (0.05, 100.0)
"""Edges of voxels that microscopes make, micrometres: beyond them a warning."""

POSSIBLE_UM = (0.001, 2000.0)
"""Beyond these a file's voxel size is refused: its unit is wrong."""

# Two sizes this close are the same: headers round.
_SAME = 0.01


def read_configured(section: Mapping[str, Any]) -> tuple[VolumeHeader, list[str]]:
    """Read the header of a volume of the configuration, once, and check its voxel size.

    Parameters
    ----------
    section : mapping
        `path`, and where they are given `voxel_size_um` and keys of
        `voxmill.volumes.SOURCE_KEYS`.

    Returns
    -------
    header : VolumeHeader
        With the given voxel size, else the file's.
    warnings : list of str

    Raises
    ------
    VoxmillError
        As `voxmill.volumes.read_header` and `check_plausible`.
    """
    given_um = section.get("voxel_size_um")
    header = read_header(section["path"], **source_choices(section))
    return with_voxel_size(header, given_um), check_plausible(header, given_um)


def check_plausible(header: VolumeHeader, given_um: Sequence[float] | None = None) -> list[str]:
    """Refuse or doubt the voxel size of a volume; returns warnings.

    Parameters
    ----------
    header : VolumeHeader
        As the file says it, without a given voxel size.
    given_um : (3,) floats, optional
        The voxel size of the configuration (z, y, x), micrometres.

    Raises
    ------
    VoxmillError
        If the file's voxel size is beyond `POSSIBLE_UM` and none is given.
    """
    found_um = header.voxel_size_um
    size = tuple(given_um) if given_um is not None else found_um
    if size is None:
        return []
    shown = " x ".join(f"{edge:g}" for edge in size)
    where = "voxel_size_um" if given_um is not None else header.voxel_size_source
    if given_um is None and not _within(size, POSSIBLE_UM):
        raise VoxmillError(
            f"{header.path}: expected a voxel size of {POSSIBLE_UM[0]:g} to {POSSIBLE_UM[1]:g} "
            f"micrometres, found {shown} ({where}; z, y, x): its unit seems to be wrong. Correct "
            "the file, or give the voxel size with `voxel_size_um: [z, y, x]`."
        )
    warnings = []
    if not _within(size, USUAL_UM):
        warnings.append(
            f"{header.path}: an implausible voxel size, {shown} micrometres ({where}; z, y, x): "
            f"microscopes make {USUAL_UM[0]:g} to {USUAL_UM[1]:g}. Check the unit, and give "
            "`voxel_size_um: [z, y, x]` if it is wrong."
        )
    if given_um is not None and found_um is not None and _reordered(size, found_um):
        told = " x ".join(f"{edge:g}" for edge in found_um)
        warnings.append(
            f"{header.path}: voxel_size_um is {shown} (z, y, x), the file says {told} "
            f"({header.voxel_size_source}): the same numbers in another order. The configuration's "
            "are used; the order is z, y, x."
        )
    return warnings


def _within(size: Sequence[float], limits: tuple[float, float]) -> bool:
    return all(limits[0] <= edge <= limits[1] for edge in size)


def _alike(size: Sequence[float], other: Sequence[float]) -> bool:
    return all(abs(a - b) <= _SAME * max(a, b) for a, b in zip(size, other, strict=True))


def _reordered(size: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two sizes hold the same numbers in another order."""
    return not _alike(size, other) and any(_alike(p, other) for p in itertools.permutations(size))


def check_mask(mask: Sequence[int], volume: Sequence[int], path: str) -> None:
    """Refuse a mask of tissue that is finer than the volume.

    Raises
    ------
    VoxmillError
        Names both shapes.
    """
    if any(m > n for m, n in zip(mask, volume, strict=True)):
        raise VoxmillError(
            f"{path}: expected a mask of tissue of at most the volume's {list(volume)} voxels "
            f"(z, y, x), found {list(mask)}. Give the mask of this volume."
        )
