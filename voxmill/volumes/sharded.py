"""Zarr v3 arrays in shards that are written one by one, each by a job of its own.

A shard is one file of many chunks, each compressed and with a checksum (the codec
`sharding_indexed` of Zarr v3). The array's grid of shards is that of the tiles' cores, so that a
job writes its file by rename and no two jobs share one:

    array/zarr.json         written last, from `ShardedArray.metadata`
    array/c/{z}/{y}/{x}     one shard; missing where all its voxels are 0

Shards are encoded and decoded by tensorstore, the metadata being given: a shard can be written and
read before the array has any.
"""

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from voxmill.geometry import Box, Triple, three
from voxmill.runtime import disk
from voxmill.runtime.checked import DamagedFileError
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import scratch_folder, sha256, write_text, writing
from voxmill.volumes.arrays import shorten
from voxmill.volumes.shard_files import StoredShard, shard_key

CHUNK_VOX = 64
"""Edge of a chunk that is aimed at: about what a viewer loads at a time."""


@dataclass(frozen=True)
class ShardedArray:
    """A Zarr v3 array z, y, x of which each shard is written on its own; 0 is its fill value.

    Parameters
    ----------
    path : str
        The array's folder.
    shape : (3,) int
        Voxels.
    dtype : str
        NumPy name of the stored type.
    shard_vox, chunk_vox : (3,) int
        Shape of a shard, and of the chunks in it; see `shard_edges`.
    compression : str
        "zstd" or "none".
    """

    path: str
    shape: Triple
    dtype: str
    shard_vox: Triple
    chunk_vox: Triple
    compression: str

    @classmethod
    def of_cores(
        cls, path: str | Path, shape: Triple, dtype: str, core_vox: Triple, compression: str
    ) -> "ShardedArray":
        """The array with one shard for each core of a grid; `core_vox` is the largest core."""
        edges = [shard_edges(n, core) for n, core in zip(shape, core_vox, strict=True)]
        (sz, cz), (sy, cy), (sx, cx) = edges
        return cls(str(path), shape, dtype, (sz, sy, sx), (cz, cy, cx), compression)

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """Content of the array's `zarr.json`."""
        little = {"name": "bytes", "configuration": {"endian": "little"}}
        codecs = [little if np.dtype(self.dtype).itemsize > 1 else {"name": "bytes"}]
        if self.compression == "zstd":
            codecs.append({"name": "zstd", "configuration": {"level": 3, "checksum": False}})
        sharding = {
            "chunk_shape": list(self.chunk_vox),
            "codecs": [*codecs, {"name": "crc32c"}],
            "index_codecs": [little, {"name": "crc32c"}],
            "index_location": "end",
        }
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": self.dtype,
            "chunk_grid": _named("regular", chunk_shape=list(self.shard_vox)),
            "chunk_key_encoding": _named("default", separator="/"),
            "fill_value": 0,
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "dimension_names": ["z", "y", "x"],
            "attributes": {},
        }

    @cached_property
    def digest(self) -> str:
        """Short digest of the metadata: shards of arrays with another one never mix."""
        text = json.dumps(self.metadata, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def shards(self) -> Triple:
        """Number of shards along z, y, x."""
        return three(-(-n // s) for n, s in zip(self.shape, self.shard_vox, strict=True))

    def indices(self, row: int) -> Iterator[Triple]:
        """Indices of the shards of one row along z."""
        _, rows, columns = self.shards
        yield from ((row, y, x) for y, x in product(range(rows), range(columns)))

    def index_of(self, voxel: Triple) -> Triple:
        """Index of the shard that holds a voxel."""
        return three(v // s for v, s in zip(voxel, self.shard_vox, strict=True))

    def box(self, index: Triple) -> Box:
        """The voxels of a shard, those within the array."""
        z, y, x = (i * s for i, s in zip(index, self.shard_vox, strict=True))
        return Box.from_shape(self.shard_vox, (z, y, x)).clip(Box.from_shape(self.shape))

    def write_shard(
        self, index: Triple, voxels: np.ndarray, before: Callable[[], None] | None = None
    ) -> StoredShard:
        """Write one shard, whole or not at all; the same voxels give the same bytes.

        A file that holds these bytes already is left as it is.

        Parameters
        ----------
        index : (3,) int
        voxels : (z, y, x) array
            All voxels of the shard's box, of the array's dtype. Where all are 0 no file is
            written, and one that was there is removed.
        before : callable, optional
            Called before a file is changed.

        Raises
        ------
        VoxmillError
            If the voxels have another shape or type.
        """
        box, key = self.box(index), shard_key(index)
        if voxels.shape != box.shape or voxels.dtype != np.dtype(self.dtype):
            raise VoxmillError(
                f"{self.path}/{key}: expected voxels {box.shape} {self.dtype}, found "
                f"{voxels.shape} {voxels.dtype}."
            )
        path = Path(self.path, key)
        if not voxels.any():
            if path.exists():
                if before is not None:
                    before()
                path.unlink()
            return StoredShard(key, 0, "")
        needed = voxels.nbytes if self.compression == "none" else 0
        try:
            with writing(path, needed) as scratch:
                stored = self._encode(key, voxels, scratch)
                self._refuse_same(stored)
                if before is not None:
                    before()
        except _UnchangedError as same:
            return same.stored
        return stored

    def _refuse_same(self, stored: StoredShard) -> None:
        with contextlib.suppress(DamagedFileError):
            self.verify(stored, "")
            raise _UnchangedError(stored)

    def verify(self, stored: StoredShard, remake: str) -> None:
        """Compare a shard's file with what was written.

        Parameters
        ----------
        stored : StoredShard
        remake : str
            What to do about a broken shard; the end of the message.

        Raises
        ------
        DamagedFileError
            If the file is missing, changed, or there though it should not be.
        """
        path = Path(self.path, stored.key)
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            if stored.is_empty:
                return
            raise DamagedFileError(f"{path}: this shard does not exist. {remake}") from None
        if size != stored.bytes:
            raise DamagedFileError(
                f"{path}: expected a shard of {stored.bytes} bytes, found {size}. {remake}"
            )
        if sha256(path) != stored.sha256:
            raise DamagedFileError(
                f"{path}: damaged: the content of this shard does not fit its checksum. {remake}"
            )

    def read(self, box: Box) -> np.ndarray:
        """Read a box of voxels; missing shards are 0.

        Raises
        ------
        VoxmillError
            If a chunk is damaged.
        """
        try:
            window: np.ndarray = self._opened[box.slices].read().result()
        except Exception as error:  # decoders raise errors of many kinds
            raise VoxmillError(
                f"{self.path}: the voxels {box} can't be decoded ({shorten(error)}). Run again: "
                "shards are checked before they are read."
            ) from None
        return window

    def write_metadata(self) -> Path:
        """Write the array's `zarr.json`; returns its path."""
        path = Path(self.path, "zarr.json")
        write_text(path, json.dumps(self.metadata, indent=1) + "\n")
        return path

    @cached_property
    def _opened(self) -> Any:
        kvstore = {"driver": "file", "path": str(Path(self.path).absolute()) + "/"}
        return _open(self.metadata, kvstore, None, open=True, assume_metadata=True)

    def _encode(self, key: str, voxels: np.ndarray, path: Path) -> StoredShard:
        """Write a shard to a file that has another name yet, and have it on the disk."""
        import tensorstore

        folder = scratch_folder(path)
        kvstore = {"driver": "file", "path": str(folder.absolute()) + "/"}
        context = tensorstore.Context({"file_io_sync": False})
        one = self.metadata | {"shape": list(self.shard_vox)}
        try:
            shard = _open(one, kvstore, context, open=True, assume_metadata=True)
            shard[tuple(slice(0, n) for n in voxels.shape)].write(voxels).result()
            os.replace(folder / shard_key((0, 0, 0)), path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        # The digest is computed while the bytes go to the disk.
        with ThreadPoolExecutor(1) as executor:
            synchronised = executor.submit(disk.sync, path)
            stored = StoredShard(key, path.stat().st_size, sha256(path))
            synchronised.result()
        return stored


class _UnchangedError(Exception):
    """A shard's file holds already what was to be written."""

    def __init__(self, stored: StoredShard):
        super().__init__(stored.key)
        self.stored = stored


def _open(metadata: dict[str, Any], kvstore: dict, context: Any, **how: Any) -> Any:
    import tensorstore  # slow to import, and planning does without

    spec = {"driver": "zarr3", "kvstore": kvstore, "metadata": metadata}
    return tensorstore.open(spec, context=context, **how).result()


def _named(name: str, **configuration: Any) -> dict[str, Any]:
    return {"name": name, "configuration": configuration}


def shard_edges(edge: int, core: int) -> tuple[int, int]:
    """Edges of shard and chunk along one axis, voxels.

    A shard is a core, and a whole number of chunks: the divisor of the core's edge that is nearest
    to `CHUNK_VOX` (as a ratio; of two, the smaller). Where the axis is one core, nothing else has
    to fit: it is divided into chunks of nearly `CHUNK_VOX`, the last one reaching beyond it by
    less than a voxel for each chunk.

    Parameters
    ----------
    edge, core : int
        Of the array, and of the largest core.

    Examples
    --------
    >>> shard_edges(2000, 256), shard_edges(2000, 200)
    ((256, 64), (200, 50))
    >>> shard_edges(97, 256), shard_edges(30, 256)
    ((98, 49), (30, 30))
    """
    if edge <= core:
        count = max(1, round(edge / CHUNK_VOX))
        chunk = -(-edge // count)
        return count * chunk, chunk
    divisors = [d for d in range(1, core + 1) if core % d == 0]
    chunk = min(divisors, key=lambda d: abs(math.log(d / CHUNK_VOX)))
    return core, chunk
