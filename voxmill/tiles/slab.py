"""The manifest of a slab: the predicted cores of its tiles, which one job checks, another reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxmill.geometry import Box
from voxmill.runtime.checked import verified, write_checked_json
from voxmill.runtime.files import read_json
from voxmill.tiles.plan import REMAKE
from voxmill.tiles.records import Record
from voxmill.volumes import TilePages, tile_pages

REMAKE_MANIFEST = "Delete the file and run again: the slab is checked anew."


@dataclass(frozen=True)
class PredictedCore:
    """The prediction of one tile's core, in a file.

    Parameters
    ----------
    name : str
        The tile's.
    core : Box
        Absolute voxels.
    path : str
        The prediction's file.
    keys : dict of str to str
        What the file must have been written with: the tile's key, the model's digest.
    """

    name: str
    core: Box
    path: str
    keys: dict[str, str]

    def open(self) -> TilePages:
        """Open the file to read one plane at a time, each verified; a context manager.

        Raises
        ------
        VoxmillError
            If the file is missing, cut short, or not the expected one.
        """
        return tile_pages(self.path, self.core.shape, np.float32, self.keys, REMAKE)

    def to_json(self) -> dict[str, Any]:
        """The core as plain JSON values, but for the checksum of its file."""
        start, stop = self.core.to_lists()
        return {
            "name": self.name,
            "start": start,
            "stop": stop,
            "path": self.path,
            "keys": self.keys,
        }


def write_slab(path: str | Path, cores: Sequence[PredictedCore]) -> None:
    """Write the manifest of a slab; every file is opened and its header checked.

    Parameters
    ----------
    path : path
    cores : sequence of PredictedCore

    Raises
    ------
    VoxmillError
        As `PredictedCore.open`.
    """
    entries = []
    for core in cores:
        with core.open() as pages:
            # Snakemake looks at a small file's content, not at its date.
            entries.append(core.to_json() | {"crc32": pages.crc32})
    write_checked_json(path, {"tiles": entries})


def read_slab(path: str | Path) -> list[PredictedCore]:
    """Read the manifest of a slab.

    Raises
    ------
    VoxmillError
        If the file is missing or no JSON object, or a key is missing or holds another type of
        value.
    """
    content = read_json(path, "slab manifest")
    record = Record(content, str(path), REMAKE_MANIFEST)
    cores = [
        PredictedCore(
            name=entry.text("name"),
            core=entry.box("start", "stop"),
            path=entry.text("path"),
            keys={key: entry.object("keys").text(key) for key in entry.object("keys").content},
        )
        for entry in record.objects("tiles")
    ]
    verified(content, path, "slab manifest", REMAKE_MANIFEST)
    return cores
