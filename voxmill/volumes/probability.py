"""Probabilities as they are stored: in one of four types, read as float32 from 0 to 1."""

from pathlib import Path
from typing import Self

import numpy as np

from voxmill.geometry import Triple
from voxmill.volumes import open_volume, read_header
from voxmill.volumes.windows import Windows

DTYPES = ("uint8", "uint16", "float16", "float32")
"""Types of stored probabilities; of an integer, its largest value stands for 1."""


def to_stored(probability: np.ndarray, dtype: str) -> np.ndarray:
    """Probabilities in the type that is stored, rounded to the nearest value.

    Examples
    --------
    >>> to_stored(np.array([0, 0.001, 0.5, 1], np.float32), "uint8")
    array([  0,   0, 128, 255], dtype=uint8)
    """
    if np.dtype(dtype).kind == "f":
        return probability.astype(dtype)
    most = np.iinfo(dtype).max
    scaled = probability * np.float32(most)
    return np.clip(np.rint(scaled, out=scaled), 0, most, out=scaled).astype(dtype)


def to_probability(stored: np.ndarray) -> np.ndarray:
    """Stored values as float32 probabilities; see `to_stored`."""
    if stored.dtype.kind != "u":  # bool stays 0 and 1
        return stored.astype(np.float32, copy=False)
    return stored / np.float32(np.iinfo(stored.dtype).max)


def rounding(dtype: str) -> float:
    """How far a stored probability may be from the network's, by rounding alone.

    >>> rounding("uint16") < rounding("float16") < rounding("uint8")
    True
    """
    kind = np.dtype(dtype)
    # Floats are coarsest just below 1.
    return 0.5 / np.iinfo(kind).max if kind.kind == "u" else float(np.finfo(kind).eps) / 4


def meaning(dtype: str) -> str:
    """How a stored value becomes a probability, for the metadata.

    >>> meaning("uint8")
    'probability = stored / 255'
    """
    if np.dtype(dtype).kind == "f":
        return "probability = stored"
    return f"probability = stored / {np.iinfo(dtype).max}"


def open_stored(path: str | Path) -> Windows:
    """Open stored probabilities to read windows of them as they are stored.

    Parameters
    ----------
    path : path
        An image of any format that `voxmill.volumes` reads, or the `zarr.json` of a Zarr group.

    Raises
    ------
    VoxmillError
        If there is no image, or it is of another type than `DTYPES`.
    """
    path = Path(path)
    place = path.parent if path.name == "zarr.json" else path
    return open_volume(read_header(place, dtypes=DTYPES))


class Probabilities:
    """Opened probabilities, read as float32; a context manager.

    Parameters
    ----------
    path : path
        As of `open_stored`.
    """

    def __init__(self, path: str | Path):
        self._windows = open_stored(path)
        self.shape = self._windows.shape
        self.dtype = self._windows.dtype.name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._windows.close()

    def read_window(self, start: Triple, stop: Triple) -> np.ndarray:
        """Probabilities (z, y, x) float32 from `start` up to, not including, `stop`."""
        return to_probability(self._windows.read_window(start, stop))
