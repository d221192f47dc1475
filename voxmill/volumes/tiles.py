"""Tiles: uncompressed TIFFs with a page per plane, their position and a checksum per page."""

import json
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import tifffile
from numpy.typing import DTypeLike

from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import writing
from voxmill.volumes.windows import read_exactly

_KIND = "voxmill tile"
CLASSIC_LIMIT = 2**32 - 2**25
"""Bytes of voxels from which a file becomes a BigTIFF; headers and page lists need the rest."""


def write_tile(
    path: str | Path,
    array: np.ndarray,
    voxel_size_um: Sequence[float] | None = None,
    origin_vox: Sequence[int] = (0, 0, 0),
    extra: dict[str, Any] | None = None,
) -> None:
    """Write a tile, whole or not at all; the same content gives the same bytes.

    Parameters
    ----------
    path : path
        The output.
    array : (z, y, x) array
        uint8, uint16, int16 or float32, or another number type of fixed size.
    voxel_size_um : (3,) floats, optional
        Voxel size (z, y, x), micrometres.
    origin_vox : (3,) ints
        Position of the tile's first voxel in the volume.
    extra : dict, optional
        JSON content kept with the tile, such as the digest of the plan; `read_tile` compares it.
    """
    array = np.ascontiguousarray(array, np.asarray(array).dtype.newbyteorder("<"))
    metadata = {
        "kind": _KIND,
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "axes": "ZYX",
        "voxel_size_um": None if voxel_size_um is None else [float(v) for v in voxel_size_um],
        "origin_vox": [int(v) for v in origin_vox],
        "page_crc32": _page_crc32(array),
        "extra": extra or {},
    }
    with writing(path, array.nbytes) as scratch:
        tifffile.imwrite(
            scratch,
            array,
            bigtiff=array.nbytes >= CLASSIC_LIMIT,
            byteorder="<",
            photometric="minisblack",
            software="voxmill",
            description=json.dumps(metadata, sort_keys=True),
            metadata=None,
        )


def pages_crc32(array: np.ndarray) -> int:
    """The checksum that `TilePages.crc32` gives of a tile of these voxels."""
    return _of_pages(_page_crc32(np.ascontiguousarray(array, array.dtype.newbyteorder("<"))))


def _page_crc32(array: np.ndarray) -> list[int]:
    return [zlib.crc32(plane) for plane in array]


def _of_pages(page_crc32: list[int]) -> int:
    return zlib.crc32(json.dumps(page_crc32).encode())


def read_tile(
    path: str | Path,
    shape: Sequence[int],
    dtype: DTypeLike,
    extra: dict[str, Any] | None = None,
    remake: str = "",
) -> np.ndarray:
    """Read a tile and verify it.

    Parameters
    ----------
    path : path
        A file of `write_tile`.
    shape, dtype : tuple of int, dtype
        What the plan expects.
    extra : dict, optional
        Keys and values that must be among those of the tile's `extra`.
    remake : str
        What to do about a broken tile, for example a command; the end of the message.

    Returns
    -------
    array : (z, y, x) array

    Raises
    ------
    VoxmillError
        If the tile is missing, truncated, damaged, or isn't the expected one.
    """
    with tile_pages(path, shape, dtype, extra, remake) as pages:
        array = np.empty(pages.shape, pages.dtype)
        for z in range(len(array)):
            array[z] = pages.read(z)
    return array


def is_tile(
    path: str | Path, shape: Sequence[int], dtype: DTypeLike, extra: dict[str, Any]
) -> bool:
    """Whether a file is the expected tile, whole; see `read_tile`."""
    try:
        with tile_pages(path, shape, dtype, extra) as pages:
            for z in range(pages.shape[0]):
                pages.read(z)
    except VoxmillError:
        return False
    return True


def tile_pages(
    path: str | Path,
    shape: Sequence[int],
    dtype: DTypeLike,
    extra: dict[str, Any] | None = None,
    remake: str = "",
) -> "TilePages":
    """Open a tile to read one page at a time, each verified; a context manager."""
    return TilePages(Path(path), tuple(shape), np.dtype(dtype), extra or {}, remake)


class TilePages:
    """An opened tile; `read(z)` returns a verified (y, x) page. See `read_tile`."""

    def __init__(
        self,
        path: Path,
        shape: Sequence[int],
        dtype: np.dtype,
        extra: dict[str, Any],
        remake: str,
    ):
        self.path, self.remake = path, remake
        self.shape, self.dtype = tuple(map(int, shape)), dtype
        self.metadata, self._offset = self._read_metadata()
        found = {
            "shape": tuple(self.metadata["shape"]),
            "dtype": self.metadata["dtype"],
            **{key: self.metadata["extra"].get(key) for key in extra},
        }
        expected = {"shape": self.shape, "dtype": dtype.name, **extra}
        for key, value in expected.items():
            if found[key] != value:
                raise self._broken(f"expected {key} {value}, found {found[key]}")
        if (number := len(self.metadata["page_crc32"])) != self.shape[0]:
            raise self._broken(f"expected {self.shape[0]} checksums of pages, found {number}")
        end = self._offset + math.prod(self.shape) * dtype.itemsize
        if (size := path.stat().st_size) < end:
            raise self._broken(f"truncated: expected {end} bytes, found {size}")
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 closed by close()

    def _broken(self, what: str) -> VoxmillError:
        return VoxmillError(f"{self.path}: {what}. {self.remake or 'Make this tile again.'}")

    def _read_metadata(self) -> tuple[dict[str, Any], int]:
        try:
            with tifffile.TiffFile(self.path) as tif:
                page = tif.pages.first
                metadata, offset = json.loads(page.description), page.dataoffsets[0]
        except FileNotFoundError:
            raise self._broken("this tile does not exist") from None
        except Exception as error:  # tifffile raises many kinds on damaged files
            raise self._broken(f"expected a tile, found a damaged file ({error})") from None
        needed = {"shape", "dtype", "page_crc32", "extra"}
        if not isinstance(metadata, dict) or needed - set(metadata):
            raise self._broken("expected a tile written by voxmill, found another TIFF")
        for key, kind in (("shape", list), ("page_crc32", list), ("extra", dict)):
            if not isinstance(metadata[key], kind):
                raise self._broken(f"expected {key} of a tile, found {str(metadata[key])[:80]}")
        return metadata, offset

    @property
    def crc32(self) -> int:
        """Checksum of all pages, from theirs."""
        return _of_pages(self.metadata["page_crc32"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def read(self, z: int) -> np.ndarray:
        """Read page `z` and verify its checksum; (y, x) in native byte order."""
        count = math.prod(self.shape[1:]) * self.dtype.itemsize
        data = read_exactly(self._file, self._offset + z * count, count, self.path, f"page {z}")
        if zlib.crc32(data) != self.metadata["page_crc32"][z]:
            raise self._broken(f"damaged: page {z} doesn't match its checksum")
        page = np.frombuffer(data, self.dtype.newbyteorder("<")).reshape(self.shape[1:])
        return page.astype(self.dtype, copy=False)
