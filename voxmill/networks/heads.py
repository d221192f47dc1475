"""One map of cells from a network's outputs: what is stored, and what detectors and labels read.

Most models have one map, or need no more than the first. Models for touching objects learn the
objects' masks and, beside them, a map that parts objects (`voxmill.training.object_targets`). Both
become one map, in which cells are found and labels grow: up to `MASK_THRESHOLD` a voxel has the
probability of the mask; above it, where the mask says that it belongs to an object, the upper half
of the scale says how far inside. So the outline is the mask's and the summits are the objects'. It
is computed voxel by voxel: whatever is true of a map for every tile and block size stays true.

A new kind of map that parts objects is a function here and one in `object_targets`, with a line in
`HEADS` and in `TARGETS`.
"""

from collections.abc import Callable, Sequence

import numpy as np

from voxmill.runtime.errors import VoxmillError

MASKS = ("mask", "foreground")
"""Names of outputs that learned the objects' masks."""
MASK_THRESHOLD = 0.5
"""Where the mask's probability ends and the objects' inside begins."""


def _summits(values: np.ndarray) -> np.ndarray:
    return values


def _valleys(values: np.ndarray) -> np.ndarray:
    return 1 - values


HEADS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "distance": _summits,
    "centre": _summits,
    "boundary": _valleys,
}
"""Names of outputs that part objects, and how far inside of an object their values say a voxel
is, 0 to 1."""


def parts_objects(outputs: Sequence[str]) -> bool:
    """Whether a model with these outputs (`ModelCard.outputs`) has learned to part objects."""
    return any(name in HEADS for name in outputs)


def check_outputs(outputs: Sequence[str], count: int, source: str) -> None:
    """Refuse names of outputs that no map of cells can be made from.

    Parameters
    ----------
    outputs : sequence of str
        Meaning of each output map, see `ModelCard.outputs`.
    count : int
        Number of maps that the network has.
    source : str
        Where the names come from, for the message.

    Raises
    ------
    VoxmillError
        If a model that parts objects has no mask, or not a name for each map.
    """
    if not parts_objects(outputs):
        return
    if len(outputs) != count or not any(name in MASKS for name in outputs):
        raise VoxmillError(
            f"{source}: outputs: expected a name for each of {count} maps, one of them of "
            f"{' or '.join(MASKS)}, beside one that parts objects ({', '.join(HEADS)}), found "
            f"{', '.join(outputs)}. Take the card and the weights of one model."
        )


def cell_map(outputs: Sequence[str], values: np.ndarray) -> np.ndarray:
    """The map in which cells are found.

    Parameters
    ----------
    outputs : sequence of str
        Meaning of each output map, see `ModelCard.outputs`.
    values : (outputs, z, y, x) float array
        Probabilities.

    Returns
    -------
    (z, y, x) float array
        The first output or, of a model that has learned to part objects, mask and inside in one.

    Examples
    --------
    >>> maps = np.array([[[[0.2, 0.6, 0.9, 0.8]]], [[[0.7, 0.0, 0.9, 0.4]]]])
    >>> cell_map(("mask", "distance"), maps).round(2)
    array([[[0.2 , 0.5 , 0.95, 0.7 ]]])
    """
    names = list(outputs)
    part = next((name for name in names if name in HEADS), None)
    if part is None:
        return values[0]
    mask = values[next(names.index(name) for name in MASKS if name in names)]
    inside = HEADS[part](values[names.index(part)])
    top = values.dtype.type(MASK_THRESHOLD)
    joined: np.ndarray = np.where(mask < top, mask, top + (1 - top) * inside)
    return joined
