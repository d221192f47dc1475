"""Label the cells of one slab of tiles."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from voxmill.cells.foreground import Foreground, read_foreground
from voxmill.cells.labels import label_block, margin
from voxmill.cells.outlines import outline_block, outline_margin
from voxmill.cells.seeds import Seeds
from voxmill.cells.table import PLACE, read_cells
from voxmill.config.objects import ObjectSettings
from voxmill.geometry import Box, Resampling, Triple, VoxelSize
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.jobs import job, logger
from voxmill.runtime.rates import remember
from voxmill.tiles.plan import read_plan
from voxmill.tiles.predicted import PlannedImage, read_row_manifest, write_row_manifest
from voxmill.volumes import Windows, check_source, open_volume, read_header
from voxmill.volumes.blocks import SerialReader, map_blocks
from voxmill.volumes.multiscale import ROOT
from voxmill.volumes.probability import open_stored
from voxmill.volumes.shard_files import StoredShard

LISTED = "listed.json"
"""The metadata of the labels as they are seen from the probability's image."""
STORAGE = {"dtype": "uint32", "compression": "zstd"}
"""How labels are stored."""


def read_seeds(path: str | Path, grid: Resampling | None = None) -> Seeds:
    """The cells of a table, which has the voxels of the file, where the volume is resampled.

    Raises
    ------
    VoxmillError
        If it is no table of cells, or its ids are no labels.
    """
    table = read_cells(path)
    try:
        places = table[PLACE].to_numpy(float)
        return Seeds(grid.from_own(places) if grid else places, table["id"].to_numpy())
    except VoxmillError as error:
        raise VoxmillError(f"{path}: {error}") from None


def needed_margin(settings: ObjectSettings, size: VoxelSize) -> Triple:
    """Voxels of foreground beyond a block that its labels depend on."""
    return outline_margin(settings, size) if settings.outlines else margin(settings, size)


def grown(
    foreground: Foreground, start: Sequence[int], block: Box, whole: Box, seeds: Seeds,
    size: VoxelSize, settings: ObjectSettings,
) -> np.ndarray:  # fmt: skip
    """Labels of a block, with smooth outlines where the settings ask for them.

    Parameters and errors are those of `voxmill.cells.labels.label_block`, with `needed_margin`
    around the block.
    """
    given = foreground.levels, start, block, whole, seeds, size, settings
    return outline_block(*given, grey=foreground.grey) if settings.outlines else label_block(*given)


def _shards_are_whole(keywords: dict[str, Any]) -> bool:
    plan = read_plan(keywords["plan_path"])
    arrays = PlannedImage.planned(keywords["image_path"], plan, STORAGE).arrays
    try:
        array, shards = read_row_manifest(keywords["output_path"], arrays[:1])
        for shard in shards:
            array.verify(shard, "")
    except VoxmillError as error:
        logger.info("labelled again: %s", error)
        return False
    return True


@job(outputs=("output_path",), whole=_shards_are_whole)
def label_slab(
    *,
    plan_path: str,
    cells_path: str,
    foreground_path: str,
    source: Mapping[str, Any] | None,
    image_path: str,
    slab: str,
    settings: dict,
    output_path: str,
    part: list[Triple] | None = None,
    fingerprint: str | None = None,
    threads: int = 1,
) -> None:
    """Write the labels of all tiles of one slab, a shard each, and the list of the shards.

    A tile is read with the margin that its labels depend on: they are those of the whole volume.

    Parameters
    ----------
    plan_path, cells_path : path
    foreground_path : path
        The probability (`zarr.json` of the image); unused where `source` is given.
    source : dict or None
        Arguments of `voxmill.volumes.read_header` where the foreground is that of the image.
    image_path : path
        Folder of the image of labels; the shards become files of its level 0.
    slab : str
        Name of the slab: the tiles whose cores start at the same plane, or rows of them.
    settings : dict
        See `ObjectSettings`.
    output_path : path
        JSON: file and checksum of each shard.
    part : pair of (3,) int, optional
        Start and stop of a box of cores: only these are predicted.
    fingerprint : str, optional
        Of the volume when the run was planned; where `source` is another one now, it is refused.
    threads : int
        Tiles worked on at once.

    Raises
    ------
    VoxmillError
        If an input is missing or broken, or the plan has no such slab.
    """
    plan, checked = read_plan(plan_path), ObjectSettings.from_dict(settings)
    array = PlannedImage.planned(image_path, plan, STORAGE).arrays[0]
    size = VoxelSize.of(plan.volume.voxel_size_um)
    seeds = read_seeds(cells_path, plan.volume.resampling)
    whole = Box.from_shape(plan.volume.shape)

    def unmake() -> None:
        for name in (ROOT, LISTED):
            Path(image_path, name).unlink(missing_ok=True)

    with open_foreground(foreground_path, source) as volume:
        reader = SerialReader(volume)
        if reader.shape != whole.shape:
            raise VoxmillError(
                f"{foreground_path}: expected the plan's shape {whole.shape}, found {reader.shape}."
            )

        def work(core: Box) -> StoredShard:
            window = core.grow(needed_margin(checked, size), within=whole)
            near = seeds.near(window)
            labels = np.zeros(core.shape, np.uint32)
            if len(near.ids):
                foreground = read_foreground(reader, window, size, checked)
                labels = grown(foreground, window.start, core, whole, near, size, checked)
            return array.write_shard(array.index_of(core.start), labels, before=unmake)

        cores = [tile.core for tile in plan.slab(slab, part)]
        start = time.perf_counter()
        shards = list(map_blocks(work, cores, threads, "labels"))
        remember("label", sum(core.size for core in cores), time.perf_counter() - start)
    if source is not None:
        # Behind the reading, so that no file that was replaced meanwhile goes unseen.
        check_source(read_header(**source), fingerprint)
    write_row_manifest(output_path, array, shards)
    filled = sum(not shard.is_empty for shard in shards)
    logger.info(
        "%d tiles of slab %s labelled, %d with cells; %s", len(shards), slab, filled, checked
    )


def open_foreground(path: str, source: Mapping[str, Any] | None) -> Windows:
    """The probability of a path or, where its arguments are given, the volume."""
    return open_stored(path) if source is None else open_volume(read_header(**source))
