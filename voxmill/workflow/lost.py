"""Notice tiles and predictions that were lost behind a manifest.

Snakemake knows of the manifests of batches and slabs, not of the files that they list. While the
Snakefile is parsed, the folders are listed once (no file is asked for by itself), and a manifest
that does not tell the truth any more is renamed, so that Snakemake misses it. Its job then makes
what is missing and keeps the rest. The rename is right in a dry run as well: it says what is so.
"""

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

from voxmill.runtime.checked import DamagedFileError, read_checked_json
from voxmill.tiles.batches import Batches, missing
from voxmill.tiles.predicted import forget, lost_tiles
from voxmill.volumes.shard_files import names_in
from voxmill.workflow.configuration import Config
from voxmill.workflow.predictions import made_by_jobs, many


def set_aside(config: Config) -> list[str]:
    """Rename the manifests of batches and slabs that lack files; a warning for each folder."""
    told = []
    for name, volume in config.volumes.items():
        folder = Path("results") / name
        if config.settings["tiles"]["keep"] == "all":
            told += _of_batches(folder / "batches", folder / "tiles", config.cuts(name), ".tif")
        for network in volume.networks:
            batches = config.batches(name)
            told += _shards(folder / network, batches)
            if batches.size > 1:
                made = folder / network
                told += _of_batches(made / "batches", made / "predictions", batches, ".json")
            if many(config, name):
                _of_slabs(config, name, network)
    return told


def _shards(folder: Path, batches: Batches) -> list[str]:
    """Have tiles predicted again whose shards are gone."""
    grid = batches.grid
    starts = [grid.start(number) for number in range(len(grid))]
    lost = lost_tiles(folder, starts, grid.tile_shape)
    for name in lost:
        with contextlib.suppress(OSError):
            forget(folder, name, batches.of_tile(name) if batches.size > 1 else None)
    return [
        f"{folder}/probability.ome.zarr: {len(lost)} shards are gone, of tile {name} first: they "
        "are predicted again."
        for name in lost[:1]
    ]


def _of_batches(manifests: Path, files: Path, batches: Batches, suffix: str) -> list[str]:
    made = names_in(manifests)
    if not made:
        return []
    lacking = missing(batches, names_in(files), suffix)
    stale = {name: number for name, number in lacking.items() if f"{name}.json" in made}
    _rename(manifests / f"{name}.json" for name in stale)
    damaged = [path for name in made if (path := _damaged(manifests / name)) is not None]
    _rename(damaged)
    told = [f"{path}: damaged: its job looks at its files again." for path in damaged]
    if not stale:
        return told
    return [
        *told,
        f"{files}: {sum(stale.values())} files of {len(stale)} jobs that were done are lost; they "
        "are made again.",
    ]


def _damaged(path: Path) -> Path | None:
    """The list itself where it does not fit its checksum; no job reads that of a batch of tiles."""
    if path.suffix != ".json" or path.name.startswith(".") or not path.is_file():
        return None
    try:
        read_checked_json(path)
    except DamagedFileError:
        return path
    return None


def _of_slabs(config: Config, volume: str, network: str) -> None:
    """The same for slabs, where targets ask for these alone."""
    folder, grid = Path("results") / volume / network, config.grid(volume)
    made = names_in(folder / "slabs")
    if not made:
        return
    exists = _listing()
    for slab in grid.slabs:
        files = made_by_jobs(config, volume, network, grid.slab(slab))
        if f"{slab}.json" in made and not all(map(exists, files)):
            _rename([folder / "slabs" / f"{slab}.json"])


def _listing() -> Callable[[str], bool]:
    """Whether a file exists, by the listing of its folder."""
    folders: dict[str, set[str]] = {}

    def exists(path: str) -> bool:
        folder, _, name = path.rpartition("/")
        if folder not in folders:
            folders[folder] = names_in(Path(folder))
        return name in folders[folder]

    return exists


def _rename(paths: Iterable[Path]) -> None:
    for path in paths:
        # Somebody else's results, or a read-only disk, may be looked at, but not changed.
        with contextlib.suppress(OSError):
            path.replace(path.with_name(f".{path.name}.lost"))
