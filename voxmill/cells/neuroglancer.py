"""Cells as precomputed annotations of Neuroglancer, and a state that shows all layers together.

Neuroglancer's Python package writes small sets only: one file an annotation, one cell of the
spatial index. Here both are sharded, and the index has levels, so that millions of cells open at
once (format: docs of Neuroglancer, "Precomputed annotation format" and "Sharded format").
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from voxmill.cells.table import PLACE
from voxmill.geometry import VoxelSize

# Annotations that a cell of the spatial index holds; Neuroglancer loads whole cells.
_LIMIT = 5000
_SEED = 0
# Keys are whole numbers in a row: no hash is needed to spread them over minishards.
_SHARDING = {
    "@type": "neuroglancer_uint64_sharded_v1",
    "preshift_bits": 9,
    "hash": "identity",
    "minishard_bits": 4,
    "shard_bits": 4,
    "minishard_index_encoding": "gzip",
    "data_encoding": "gzip",
}
_ENCODED = np.dtype([("place", "<f4", 3), ("score", "<f4")])


@dataclass(frozen=True)
class Layer:
    """A layer of a state of Neuroglancer.

    Parameters
    ----------
    name : str
    kind : str
        Of Neuroglancer's layers: "image" or "segmentation".
    url : str
        Address of an OME-Zarr, without Neuroglancer's prefix.
    shown : (2,) float, optional
        The grey values that are shown black and white.
    """

    name: str
    kind: str
    url: str
    shown: tuple[float, float] | None = None


def write_annotations(
    folder: Path, cells: pd.DataFrame, shape: Sequence[int], size: VoxelSize
) -> None:
    """Write cells as a point annotation each, with their score.

    Parameters
    ----------
    folder : path
        An existing empty folder.
    cells : pandas.DataFrame
        As `voxmill.cells.table.read_cells` gives it.
    shape : (3,) int
        Of the volume, voxels, z, y, x.
    size : VoxelSize

    Notes
    -----
    Places are voxels, whose centres have whole numbers as Neuroglancer has them for OME-Zarr.
    """
    encoded = np.zeros(len(cells), _ENCODED)
    encoded["place"] = cells[PLACE].to_numpy()
    encoded["score"] = cells["score"].to_numpy()
    ids = cells["id"].to_numpy().astype("<u8")
    by_id = ((int(key), row.tobytes()) for key, row in zip(ids, encoded, strict=True))
    _write_sharded(folder, "by_id", by_id)
    lower = np.full(3, -0.5)
    upper = np.asarray(shape) - 0.5
    levels = list(_levels(encoded["place"].astype(float), lower, upper))
    for number, (_, _, parts) in enumerate(levels):
        _write_sharded(
            folder,
            f"spatial{number}",
            ((key, _encode_many(encoded[rows], ids[rows])) for key, rows in parts.items()),
        )
    info = {
        "@type": "neuroglancer_annotations_v1",
        "dimensions": _dimensions(size),
        "lower_bound": lower.tolist(),
        "upper_bound": upper.tolist(),
        "annotation_type": "POINT",
        "properties": [{"id": "score", "type": "float32", "description": "largest probability"}],
        "relationships": [],
        "by_id": {"key": "by_id", "sharding": _SHARDING},
        "spatial": [
            {
                "key": f"spatial{number}",
                "sharding": _SHARDING,
                "grid_shape": grid.tolist(),
                "chunk_size": chunk.tolist(),
                "limit": _LIMIT,
            }
            for number, (grid, chunk, _) in enumerate(levels)
        ],
    }
    (folder / "info").write_text(json.dumps(info))


def write_state(path: Path, layers: Sequence[Layer], annotations_url: str, size: VoxelSize) -> None:
    """Write a state that opens layers and cells on one another.

    Parameters
    ----------
    path : path
        JSON, to be pasted into Neuroglancer's state editor or given to its Python package.
    layers : sequence of Layer
    annotations_url : str
        Address of the folder that `write_annotations` wrote.
    size : VoxelSize
    """
    state = {
        "dimensions": _dimensions(size),
        "layers": [
            *map(_layer, layers),
            {
                "type": "annotation",
                "name": "cells",
                "source": f"precomputed://{annotations_url}",
                "annotationColor": "#ffcc00",
            },
        ],
        "layout": "4panel",
    }
    path.write_text(json.dumps(state, indent=2))


def _layer(layer: Layer) -> dict[str, Any]:
    state: dict[str, Any] = {
        "type": layer.kind,
        "name": layer.name,
        "source": f"zarr://{layer.url}",
    }
    if layer.shown is not None:
        state["shaderControls"] = {"normalized": {"range": list(layer.shown)}}
    return state


def _dimensions(size: VoxelSize) -> dict[str, Any]:
    return {axis: [length * 1e-6, "m"] for axis, length in zip("zyx", size, strict=True)}


Level = tuple[np.ndarray, np.ndarray, dict[int, np.ndarray]]
"""Cells of the grid along z, y, x, their edge lengths, and the annotations of each by its key."""


def _levels(places: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> Iterator[Level]:
    """Levels of the spatial index, coarse to fine; each annotation is in one of them.

    A level shows a random share of what is left, so that none of its cells holds more than the
    limit on average of the fullest one; the next halves the longest edges.
    """
    random = np.random.default_rng(_SEED)
    left = random.permutation(len(places))
    grid = np.ones(3, int)
    while True:
        chunk = (upper - lower) / grid
        index = np.clip(((places[left] - lower) // chunk).astype(int), 0, grid - 1)
        flat = np.ravel_multi_index(index.T, grid) if len(left) else np.zeros(0, int)
        # The first ones of each cell in the random order: a sample of it.
        order = np.argsort(flat, kind="stable")
        rank = np.empty(len(flat), int)
        starts = np.searchsorted(flat[order], flat[order])
        rank[order] = np.arange(len(flat)) - starts
        shown = rank < _LIMIT
        yield grid.copy(), chunk, _by_key(left[shown], index[shown], grid)
        left = left[~shown]
        if not len(left):
            return
        grid = np.where(chunk >= chunk.max() / np.sqrt(2), 2 * grid, grid)


def _by_key(rows: np.ndarray, index: np.ndarray, grid: np.ndarray) -> dict[int, np.ndarray]:
    keys = _morton(index, grid)
    order = np.argsort(keys, kind="stable")
    found, starts = np.unique(keys[order], return_index=True)
    parts = np.split(rows[order], starts[1:])  # one empty part where there is none
    return {int(key): part for key, part in zip(found, parts, strict=False)}


def _morton(index: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Neuroglancer's compressed Morton code of (N, 3) places in a grid: their bits in turn."""
    bits = [int(count - 1).bit_length() for count in grid]
    codes = np.zeros(len(index), np.int64)
    place = 0
    for level in range(max(bits)):
        for axis in range(3):
            if level < bits[axis]:
                codes |= (index[:, axis] >> level & 1) << place
                place += 1
    return codes


def _encode_many(encoded: np.ndarray, ids: np.ndarray) -> bytes:
    return np.uint64(len(ids)).tobytes() + encoded.tobytes() + ids.tobytes()


def _write_sharded(folder: Path, key: str, values: Iterable[tuple[int, bytes]]) -> None:
    import tensorstore as ts

    store = ts.KvStore.open(
        {
            "driver": "neuroglancer_uint64_sharded",
            "metadata": _SHARDING,
            "base": f"file://{folder.resolve() / key}/",
        }
    ).result()
    # One transaction: each shard is written once, not once an annotation.
    with ts.Transaction() as transaction:
        writing = store.with_transaction(transaction)
        for number, value in values:
            writing[number.to_bytes(8, "big")] = value
