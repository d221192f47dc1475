"""Where a prediction gets its tiles from: files that were cut, or windows of the volume itself."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from voxmill.tiles.plan import REMAKE, Plan, PlannedTile
from voxmill.volumes import (
    VolumeHeader,
    Windows,
    check_finite,
    check_source,
    open_volume,
    read_header,
    read_tile,
    tile_pages,
)
from voxmill.volumes.tiles import pages_crc32

Voxels = npt.NDArray[Any]


class TileSource(Protocol):
    """Gives the voxels of tiles."""

    def read(self, tile: PlannedTile, /) -> Voxels:
        """The (z, y, x) voxels of a tile's window, in the volume's dtype."""

    def crc32(self, tile: PlannedTile, /) -> int:
        """Checksum of these voxels, the same whatever they are read from."""


class TileFiles:
    """Tiles that `cut_tiles` wrote.

    Parameters
    ----------
    folder : path
    dtype : str
        Of the volume.
    """

    def __init__(self, folder: str | Path, dtype: str):
        self.folder, self.dtype = Path(folder), np.dtype(dtype)

    def read(self, tile: PlannedTile) -> Voxels:
        """Read a tile's file and verify it."""
        return read_tile(self._path(tile), *self._expected(tile))

    def crc32(self, tile: PlannedTile) -> int:
        """Checksum of a tile's voxels, from the header of its file."""
        with tile_pages(self._path(tile), *self._expected(tile)) as pages:
            return pages.crc32

    def _path(self, tile: PlannedTile) -> Path:
        return self.folder / f"{tile.name}.tif"

    def _expected(self, tile: PlannedTile) -> tuple[Any, ...]:
        return tile.window.shape, self.dtype, {"tile": tile.key}, REMAKE


class VolumeWindows:
    """Windows of an open volume, of which no tiles are cut."""

    def __init__(self, windows: Windows, header: VolumeHeader):
        self.windows, self.header = windows, header
        self._crc32: dict[str, int] = {}

    def read(self, tile: PlannedTile) -> Voxels:
        """Read a tile's window."""
        voxels = self.windows.read_window(*tile.window)
        check_finite(voxels, self.header.path, tile.window.start)
        self._crc32[tile.name] = pages_crc32(voxels)
        return voxels

    def crc32(self, tile: PlannedTile) -> int:
        """Checksum of a window's voxels, which is read for it unless it was before."""
        if tile.name not in self._crc32:
            self.read(tile)
        return self._crc32[tile.name]


@contextlib.contextmanager
def open_tiles(source: Mapping[str, Any], plan: Plan) -> Iterator[TileSource]:
    """Open where tiles are read from; a context manager, which compares the volume at both ends.

    Parameters
    ----------
    source : dict
        {"folder": path} of files that were cut, or {"volume": arguments of
        `voxmill.volumes.read_header`}.
    plan : Plan

    Raises
    ------
    VoxmillError
        If the volume cannot be read, or is not the planned one, at the end of the context again:
        what was made of its windows meanwhile may be of two volumes.
    """
    if "folder" in source:
        yield TileFiles(source["folder"], plan.volume.dtype)
        return
    header = read_header(**source["volume"])
    check_source(header, plan.fingerprint)
    with open_volume(header) as windows:
        yield VolumeWindows(windows, header)
    # Behind the reading, so that no file that was replaced meanwhile goes unseen.
    check_source(header, plan.fingerprint)
