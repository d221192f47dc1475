"""Groups and arrays of a Zarr store, versions 2 and 3: metadata alone, no chunk is read."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.zarr_store import Store, join

_KNOWN_CODECS = {
    2: {"blosc", "zlib", "gzip", "bz2", "zstd"},
    3: {"bytes", "transpose", "sharding_indexed", "blosc", "gzip", "zstd", "crc32c"},
}
"""Codecs that tensorstore decodes; arrays with others are read by zarr."""

_NUMBERS = (
    *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)


@dataclass(frozen=True)
class ZarrArray:
    """What the metadata of an array say.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype or None
        In the stored byte order; None where it is no number.
    files : tuple of int
        Shape of what lies in one file: a chunk, or a shard of chunks.
    chunks : tuple of int
        Shape of what is decoded at a time.
    names : tuple of str, optional
        Names of the axes (`dimension_names`, `_ARRAY_DIMENSIONS`).
    codecs : frozenset of str
    key_prefix, separator : str
        How the files of chunks are named: `c/0/0/0` or `0.0.0`.
    """

    shape: tuple[int, ...]
    dtype: np.dtype | None
    files: tuple[int, ...]
    chunks: tuple[int, ...]
    names: tuple[str | None, ...] | None
    codecs: frozenset[str]
    key_prefix: str
    separator: str

    def key(self, voxel: tuple[int, ...]) -> str:
        """Key of the file that holds a voxel, below the array's own key."""
        at = [str(v // edge) for v, edge in zip(voxel, self.files, strict=True)]
        prefix = [self.key_prefix] if self.key_prefix else []
        return self.separator.join(prefix + (at or ["0"]))


@dataclass(frozen=True)
class Node:
    """A group or an array of a store; `metadata_key` is the file that says so."""

    store: Store
    key: str
    version: int
    metadata_key: str
    metadata: dict
    attributes: dict

    @property
    def name(self) -> str:
        """Where the node is, for messages."""
        return self.store.name(self.key).rstrip("/")

    @property
    def metadata_name(self) -> str:
        """Where its metadata are, for messages."""
        return self.store.name(self.metadata_key)

    @property
    def is_array(self) -> bool:
        """Whether the node is an array, not a group."""
        return self.metadata_key.endswith(".zarray") or self.metadata.get("node_type") == "array"

    @cached_property
    def array(self) -> ZarrArray:
        """The array's metadata, checked."""
        return (_array_v2 if self.version == 2 else _array_v3)(self)

    @property
    def by_tensorstore(self) -> bool:
        """Whether tensorstore knows all of the array's codecs."""
        return self.array.codecs <= _KNOWN_CODECS[self.version]


def read_node(store: Store, key: str) -> Node | None:
    """Read the metadata of one group or array; None where there is none.

    Raises
    ------
    VoxmillError
        If they are no JSON object, or of a kind that isn't known.
    """
    content = _read_json(store, join(key, "zarr.json"))
    if content is not None:
        if content.get("node_type") not in ("array", "group"):
            raise broken(
                store.name(join(key, "zarr.json")), "node_type", '"array" or "group"',
                content.get("node_type"),
            )  # fmt: skip
        attributes = content.get("attributes") or {}
        metadata_key, version = join(key, "zarr.json"), 3
    else:
        attributes = _read_json(store, join(key, ".zattrs"))
        for name in (".zarray", ".zgroup"):
            content = _read_json(store, join(key, name))
            if content is not None:
                break
        metadata_key, version = join(key, name), 2
        if content is None and attributes is None:
            return None
        attributes = attributes or {}
    if not isinstance(attributes, dict):
        raise broken(store.name(metadata_key), "attributes", "an object", attributes)
    return Node(store, key, version, metadata_key, content or {}, attributes)


def broken(origin: str, key: str, expected: str, found: object) -> VoxmillError:
    """An error about damaged metadata: which file and key, what was expected and found."""
    return VoxmillError(
        f"{origin}: {key}: expected {expected}, found {found!r:.120}: the metadata are damaged. "
        "Copy or write the store again."
    )


def _read_json(store: Store, key: str) -> dict | None:
    data = store.read(key)
    if data is None:
        return None
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise VoxmillError(
            f"{store.name(key)}: expected the metadata of a Zarr in JSON, found {error}. Copy or "
            "write the store again."
        ) from None
    if not isinstance(content, dict):
        raise broken(store.name(key), "the file", "a JSON object", content)
    return content


def _lengths(node: Node, key: str, found: Any, least: int, count: int | None) -> tuple:
    """A list of whole numbers of at least `least`, `count` of them."""
    fine = isinstance(found, list) and all(type(n) is int and n >= least for n in found)
    if not fine or count not in (None, len(found)):
        number = "" if count is None else f"{count} "
        raise broken(node.metadata_name, key, f"{number}whole numbers from {least}", found)
    return tuple(found)


def _array_v2(node: Node) -> ZarrArray:
    content = node.metadata
    shape = _lengths(node, "shape", content.get("shape"), 0, None)
    chunks = _lengths(node, "chunks", content.get("chunks"), 1, len(shape))
    separator = content.get("dimension_separator", ".")
    if separator not in (".", "/"):
        raise broken(node.metadata_name, "dimension_separator", '"." or "/"', separator)
    filters = content.get("filters") or []
    if not isinstance(filters, list):
        raise broken(node.metadata_name, "filters", "a list", filters)
    codecs = [content.get("compressor"), *filters, *(["filters"] if filters else [])]
    try:
        dtype = np.dtype(content["dtype"])
    except (KeyError, TypeError, ValueError):
        dtype = None
    return ZarrArray(
        shape, _number(dtype), chunks, chunks, _names(node, "_ARRAY_DIMENSIONS", len(shape)),
        frozenset(_codec_name(node, "id", codec) for codec in codecs if codec is not None),
        "", separator,
    )  # fmt: skip


def _array_v3(node: Node) -> ZarrArray:
    content = node.metadata
    shape = _lengths(node, "shape", content.get("shape"), 0, None)
    grid = content.get("chunk_grid")
    if not isinstance(grid, dict) or grid.get("name") != "regular":
        raise broken(node.metadata_name, "chunk_grid", "a regular grid", grid)
    files = _settings(node, "chunk_grid", grid).get("chunk_shape")
    files = _lengths(node, "chunk_shape", files, 1, len(shape))
    chunks, codecs = _codecs_v3(node, files, content.get("codecs"))
    keys = content.get("chunk_key_encoding")
    if not isinstance(keys, dict) or keys.get("name") not in ("default", "v2"):
        raise broken(node.metadata_name, "chunk_key_encoding", '"default" or "v2"', keys)
    default = keys["name"] == "default"
    settings = _settings(node, "chunk_key_encoding", keys)
    separator = settings.get("separator", "/" if default else ".")
    if separator not in (".", "/"):
        raise broken(node.metadata_name, "chunk_key_encoding.separator", '"." or "/"', separator)
    kind = content.get("data_type")
    dtype = np.dtype(kind) if kind in _NUMBERS else None
    return ZarrArray(
        shape, dtype, files, chunks, _names(node, "dimension_names", len(shape)),
        codecs, "c" if default else "", separator,
    )  # fmt: skip


def _codecs_v3(node: Node, chunks: tuple, found: object) -> tuple[tuple, frozenset[str]]:
    """Shape of the innermost chunks, and the names of all codecs, those in shards included."""
    names: set[str] = set()
    if not isinstance(found, list) or not found:
        raise broken(node.metadata_name, "codecs", "a list of codecs", found)
    for codec in found:
        names.add(_codec_name(node, "name", codec))
        if isinstance(codec, dict) and codec["name"] == "sharding_indexed":
            settings = _settings(node, "codecs", codec)
            inside = settings.get("chunk_shape")
            inside = _lengths(node, "codecs.chunk_shape", inside, 1, len(chunks))
            chunks, inner = _codecs_v3(node, inside, settings.get("codecs"))
            names |= inner
    return chunks, frozenset(names)


def _settings(node: Node, key: str, item: dict) -> dict:
    """The `configuration` of a named part of the metadata."""
    found = item.get("configuration", {})
    if not isinstance(found, dict):
        raise broken(node.metadata_name, f"{key}.configuration", "an object", found)
    return found


def _number(dtype: np.dtype | None) -> np.dtype | None:
    return dtype if dtype is not None and dtype.newbyteorder("=").name in _NUMBERS else None


def _codec_name(node: Node, key: str, codec: object) -> str:
    if isinstance(codec, str):
        return codec
    name = codec.get(key) if isinstance(codec, dict) else None
    if not isinstance(name, str):
        raise broken(node.metadata_name, "codecs", f"objects with {key}", codec)
    return name


def _names(node: Node, key: str, count: int) -> tuple[str | None, ...] | None:
    found = node.metadata.get(key, node.attributes.get(key))
    if not isinstance(found, list) or len(found) != count:
        return None
    return tuple(name if isinstance(name, str) else None for name in found)
