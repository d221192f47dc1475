"""Test-time augmentation: the mean prediction over mirror images of a box."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

ALL_AXES = (0, 1, 2)


def over_flips(
    run: Callable, volume: Any, axes: tuple[int, ...] = ALL_AXES, multiple: int = 1
) -> Any:
    """Mean of the predictions of all mirror images, each mirrored back.

    This costs 2^len(axes) evaluations. Outside of a mirrored box the network sees zeros, as it does
    outside of the box itself.

    Parameters
    ----------
    run : callable
        (inputs, z, y, x) float32 array -> (outputs, z, y, x) float32 array, such as a backend's
        `run` with all but the volume given.
    volume : (inputs, z, y, x) float32 array or tensor
        A tensor stays on its device.
    axes : tuple of int
        Which of z, y, x (0, 1, 2) are mirrored: those along which the data have no direction.
    multiple : int
        The box is padded with zeros to edges that are multiples of it, so that a network that
        pools puts the same voxels together in every mirror image.

    Returns
    -------
    (outputs, z, y, x) float32 array or tensor

    Raises
    ------
    ValueError
        If an axis is not 0, 1 or 2, or is given twice.

    Examples
    --------
    >>> right = lambda box: np.roll(box, 1, axis=3)
    >>> over_flips(right, np.array([[[[0.0, 1.0, 0.0, 0.0]]]], np.float32), axes=(2,))
    array([[[[0.5, 0. , 0.5, 0. ]]]], dtype=float32)
    """
    if sorted(set(axes)) != sorted(axes) or not set(axes) <= {0, 1, 2}:
        raise ValueError(f"expected different axes out of 0, 1, 2, found {axes}")
    edges = volume.shape[1:]
    if multiple > 1:
        volume = np.pad(volume, [(0, 0), *((0, -n % multiple) for n in edges)])
    # The image that is not mirrored is the first. Adding zero copies it.
    mean = run(_flipped(volume, ())) + 0.0
    for count in range(1, len(axes) + 1):
        for mirrored in itertools.combinations(axes, count):
            flip = tuple(axis + 1 for axis in mirrored)
            mean += _flipped(run(_flipped(volume, flip)), flip)
    mean = mean[(slice(None), *(slice(n) for n in edges))]
    mean *= 0.5 ** len(axes)
    return mean


def _flipped(volume: Any, axes: tuple[int, ...]) -> Any:
    """A mirror image, contiguous."""
    if isinstance(volume, np.ndarray):
        return np.ascontiguousarray(np.flip(volume, axes))
    return volume.flip(axes)
