"""Writing a whole volume as a tiled, compressed OME-BigTIFF with a pyramid of each plane."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from voxmill.runtime.files import writing
from voxmill.volumes.output import calibration
from voxmill.volumes.pyramid import COARSEST_VOX, REDUCE, Reduce
from voxmill.volumes.windows import Windows

_TILE_VOX = 256


def write_pyramid(
    path: str | Path,
    volume: Windows,
    voxel_size_um: Sequence[float] | None = None,
    how: str = "mean",
) -> None:
    """Write an opened volume; the same content gives the same bytes.

    Each plane has its levels of half the resolution along y and x in SubIFDs, as OME-TIFF wants
    them; z stays whole. The volume is read once for each level.

    Parameters
    ----------
    path : path
        The output, written whole or not at all.
    volume : Windows
        float16 is written as float32: OME-TIFF has no such type.
    voxel_size_um : (3,) floats, optional
        Voxel size (z, y, x), micrometres.
    how : str
        How levels are reduced: "mean" or, for labels, "mode".
    """
    dtype = np.dtype(np.float32) if volume.dtype == np.float16 else volume.dtype
    count = 0
    while max(volume.shape[1:]) / 2**count > COARSEST_VOX:
        count += 1
    metadata, resolution = calibration(voxel_size_um)
    layout: dict[str, Any] = {
        "dtype": dtype.newbyteorder("<"),
        "photometric": "minisblack",
        "compression": "zlib",
        "predictor": dtype.kind != "f",
        "tile": (_TILE_VOX, _TILE_VOX),
        "software": "voxmill",
        "maxworkers": 1,
    }
    with (
        writing(path) as scratch,
        tifffile.TiffWriter(scratch, ome=True, bigtiff=True, byteorder="<") as writer,
    ):
        for level in range(count + 1):
            edges = [-(-n // 2**level) for n in volume.shape[1:]]
            first = {"metadata": metadata, "subifds": count, **resolution}
            writer.write(
                _tiles(volume, level, dtype, REDUCE[how]),
                shape=(volume.shape[0], *edges),
                **layout,
                **(first if level == 0 else {"subfiletype": 1, "metadata": None}),
            )


def _tiles(volume: Windows, level: int, dtype: np.dtype, reduce: Reduce) -> Iterator[np.ndarray]:
    """Tiles of all planes at a level, row by row; those at the far border are filled with 0."""
    for _, plane in volume.planes():
        reduced = plane[None]
        for _ in range(level):
            step = (1, *(2 if n > 1 else 1 for n in reduced.shape[1:]))
            reduced = reduce(reduced, step)  # type: ignore[arg-type]
        missing = [(0, -n % _TILE_VOX) for n in reduced.shape[1:]]
        whole = np.pad(reduced[0].astype(dtype, copy=False), missing)
        for y in range(0, whole.shape[0], _TILE_VOX):
            for x in range(0, whole.shape[1], _TILE_VOX):
                yield np.ascontiguousarray(whole[y : y + _TILE_VOX, x : x + _TILE_VOX])
