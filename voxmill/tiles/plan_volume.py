"""Plan the tiles of a volume."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from voxmill.geometry import Triple, three
from voxmill.runtime.checked import verified
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import read_json
from voxmill.runtime.jobs import job, logger
from voxmill.tiles.forecast import forecast as forecast_of
from voxmill.tiles.forecast import needed_bytes, report, told
from voxmill.tiles.plan import Plan, PlannedVolume, write_plan
from voxmill.tiles.records import Record
from voxmill.volumes import read_header

REMAKE_HALO = "Delete the file and run again: the halo is measured anew."


@job(outputs=("output_path",))
def plan_volume(
    *,
    volume: dict[str, Any],
    fingerprint: str,
    tile_shape_vox: Triple,
    halo_vox: Triple | None,
    halo_paths: list[str],
    output_path: str,
    forecast: dict[str, Any] | None = None,
) -> None:
    """Write `plan.json` of a volume.

    Parameters
    ----------
    volume : dict
        Arguments of `voxmill.volumes.read_header`.
    fingerprint : str
        Of the volume's content, see `voxmill.volumes.fingerprint`.
    tile_shape_vox : (3,) int
        The largest core, voxels.
    halo_vox : (3,) int or None
        None: the largest of the measured halos, one file for each network.
    halo_paths : list of path
        What `measure_halo` wrote.
    output_path : path
    forecast : dict, optional
        What the configuration says of the jobs, see `voxmill.tiles.forecast`: the log then tells
        what the run will take.

    Raises
    ------
    VoxmillError
        If the volume can't be read or has no voxel size, a measured halo is broken, or the tiles
        are impossible.
    """
    header = read_header(**volume)
    size_um = header.known_voxel_size_um
    halo = _largest_halo(halo_paths, fingerprint) if halo_vox is None else halo_vox
    planned = PlannedVolume(
        header.shape, header.dtype, size_um, header.own_shape, header.own_voxel_size_um
    )
    plan = Plan(planned, fingerprint, three(tile_shape_vox), three(halo))
    write_plan(output_path, plan)
    logger.info(
        "%s: %d tiles of up to %s voxels with a halo of %s in a volume of %s",
        volume["path"], len(plan.grid), plan.tile_shape_vox, plan.halo_vox, header.shape,
    )  # fmt: skip
    if forecast is not None:
        _log_forecast(plan, forecast, Path(output_path).parent)


def _log_forecast(plan: Plan, wanted: dict[str, Any], folder: Path) -> None:
    steps = forecast_of(plan.grid, plan.halo_vox, np.dtype(plan.volume.dtype).itemsize, wanted)
    for line in report("the run", plan.grid, plan.halo_vox, steps).splitlines():
        logger.info("%s", line)
    free = shutil.disk_usage(folder).free
    if needed_bytes(steps) > free:
        logger.warning("%s: free space, or see tiles.keep", told(steps, free, folder))
    else:
        logger.info("%s", told(steps, free, folder))


def _largest_halo(paths: Sequence[str], fingerprint: str) -> Triple:
    """The largest halo along each axis of those in files that `measure_halo` wrote."""
    measured = [_halo(path, fingerprint) for path in paths]
    return three(max(values) for values in zip(*measured, strict=True))


def _halo(path: str, fingerprint: str) -> Triple:
    content = read_json(path, "halo measurement")
    halo = Record(content, str(path), REMAKE_HALO).triple("halo_vox")
    verified(content, path, "halo measurement", REMAKE_HALO)
    if content.get("fingerprint") not in (None, fingerprint):
        raise VoxmillError(
            f"{path}: expected a halo measured on the volume of this plan, found one of another: "
            f"the volume was replaced while the run went on. {REMAKE_HALO}"
        )
    return halo
