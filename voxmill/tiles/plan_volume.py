"""Plan the tiles of a volume."""

from voxmill.runtime.files import read_json, write_json
from voxmill.runtime.jobs import job, logger
from voxmill.tiles.grid import Triple
from voxmill.tiles.plan import make_plan
from voxmill.volumes import read_header


@job
def plan_volume(
    *,
    volume: dict,
    fingerprint: str,
    tile_shape_vox: Triple,
    halo_vox: Triple | None,
    halo_paths: list[str],
    output_path: str,
) -> None:
    """Write `plan.json` of a volume.

    Parameters
    ----------
    volume : dict
        Arguments of `voxmill.volumes.read_header`.
    fingerprint : str
        See `make_plan`.
    tile_shape_vox : (3,) int
    halo_vox : (3,) int or None
        None: the largest of the measured halos, one file for each network.
    halo_paths : list of path
        What `measure_halo` wrote.
    output_path : path
    """
    header = read_header(**volume)
    if halo_vox is None:
        measured = [read_json(path, "halo measurement")["halo_vox"] for path in halo_paths]
        halo_vox = tuple(max(values) for values in zip(*measured, strict=True))
    source = {
        "shape": list(header.shape),
        "dtype": str(header.dtype),
        "voxel_size_um": list(header.voxel_size_um),
    }
    plan = make_plan(source, fingerprint, tuple(tile_shape_vox), tuple(halo_vox))
    write_json(output_path, plan)
    logger.info(
        "%s: %d tiles of up to %s voxels with a halo of %s in a volume of %s",
        volume["path"], len(plan["tiles"]), tile_shape_vox, halo_vox, header.shape,
    )  # fmt: skip
