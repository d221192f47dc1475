"""What labels are made from: the cells' places, and probabilities as whole numbers."""

from dataclasses import dataclass

import numpy as np

from voxmill.geometry import Box
from voxmill.runtime.errors import VoxmillError

LEVELS = 255


@dataclass(frozen=True)
class Seeds:
    """The cells that labels are wanted of.

    Parameters
    ----------
    places : (K, 3) float array
        Absolute voxels, z, y, x.
    ids : (K,) uint32 array
        Their labels; above 0, each once.

    Raises
    ------
    VoxmillError
        If an id is no whole number from 1 to 2^32 - 1, or comes twice, or a place is not finite.
    """

    places: np.ndarray
    ids: np.ndarray

    def __post_init__(self) -> None:
        ids = np.asarray(self.ids)
        places = np.asarray(self.places, dtype=float).reshape(-1, 3)
        if len(ids) != len(places) or not np.isfinite(places).all():
            raise VoxmillError(
                f"cells: expected a finite place for each of {len(ids)} ids, found {len(places)} "
                "places, or one that is not finite."
            )
        most = np.iinfo(np.uint32).max
        bad = (ids < 1) | (ids > most) | (ids != np.floor(ids))
        if bad.any():
            raise VoxmillError(
                f"cells: expected ids that are whole numbers from 1 to {most} (labels are uint32), "
                f"found {ids[bad][0]}."
            )
        if len(np.unique(ids)) != len(ids):
            names, counts = np.unique(ids, return_counts=True)
            raise VoxmillError(
                f"cells: expected each id once, found {names[counts.argmax()]} {counts.max()} times"
            )
        object.__setattr__(self, "ids", ids.astype(np.uint32))
        object.__setattr__(self, "places", places)

    def near(self, box: Box) -> "Seeds":
        """The seeds whose voxel lies in a box."""
        inside = box.contains(np.rint(self.places))
        return Seeds(self.places[inside], self.ids[inside])


def quantised(values: np.ndarray, name: str = "probability") -> np.ndarray:
    """Probabilities as whole numbers from 0 to 255.

    Parameters
    ----------
    values : array
        Floats from 0 to 1, or unsigned integers whose dtype's largest value stands for 1.

    Raises
    ------
    VoxmillError
        If a value is not finite, or outside of 0 to 1, or the type is another.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "u":
        return np.rint(values * (LEVELS / np.iinfo(values.dtype).max)).astype(np.uint8)
    if values.dtype.kind not in "fb":
        raise VoxmillError(f"{name}: expected probabilities, found voxels of type {values.dtype}")
    bad = ~((values >= 0) & (values <= 1))
    if bad.any():
        raise VoxmillError(f"{name}: expected values from 0 to 1, found {values[bad][0]}.")
    return np.rint(values * np.float32(LEVELS)).astype(np.uint8)
