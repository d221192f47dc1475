"""Grey values as a network takes them: by percentiles of the whole volume, or by local maps."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from voxmill.config.normalisation import Normalisation
from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.grey_blocks import GreyBlocks
from voxmill.volumes.grey_maps import make_maps

Normaliser = Callable[[np.ndarray, Sequence[int]], np.ndarray]
"""Takes a window of grey values and the absolute voxel of its first voxel; gives float32."""


def make_normaliser(
    statistics: dict[str, Any],
    blocks: GreyBlocks | None,
    normalisation: dict[str, Any],
    tissue: np.ndarray | None = None,
) -> Normaliser:
    """What normalises the windows of a volume as a card says.

    Parameters
    ----------
    statistics : dict
        Of the volume, for kind global.
    blocks : GreyBlocks, optional
        Of the volume, for kind local.
    normalisation : dict
        See `voxmill.config.normalisation.Normalisation`.
    tissue : (Z, Y, X) bool array, optional
        Blocks of tissue; all by default.

    Raises
    ------
    VoxmillError
        As `normalise` and `voxmill.volumes.grey_maps.make_maps`, or if blocks are needed and not
        given.
    """
    settings = Normalisation.from_dict(normalisation)
    if settings.kind == "local":
        if blocks is None:
            raise VoxmillError("normalisation: kind local needs the blocks of the volume.")
        return make_maps(blocks, settings, tissue).normalise
    plain = settings.plain()
    check_normalisation(statistics, plain)
    return lambda window, start: normalise(window, statistics, plain)


def normalise(array: np.ndarray, statistics: dict, normalisation: dict) -> np.ndarray:
    """Scale grey values so that two percentiles of the whole volume become 0 and 1, then clip.

    Parameters
    ----------
    array : array
        Grey values of any shape.
    statistics : dict
        Of the whole volume, see `voxmill.volumes.measure_volume.measure`.
    normalisation : dict
        `low` and `high`: percentiles that were measured; `clip`: results are limited to
        [-clip, clip].

    Returns
    -------
    scaled : float32 array
        (array - P_low) / (P_high - P_low), clipped; the shape of `array`.

    Raises
    ------
    VoxmillError
        If a setting is unknown, missing or out of range, a percentile was not measured, or both
        percentiles have the same value.
    """
    low, high, clip = check_normalisation(statistics, normalisation)
    # Single precision holds 16-bit grey values exactly, so the offset is subtracted first.
    scaled = np.subtract(array, np.float32(low), dtype=np.float32)
    scaled *= np.float32(1 / (high - low))
    return np.clip(scaled, -clip, clip, out=scaled)


def check_normalisation(statistics: dict, normalisation: dict) -> tuple[float, float, float]:
    """Grey values that become 0 and 1, and the clip; errors as of `normalise`."""
    expected = {"low", "high", "clip"}
    if set(normalisation) - {"kind"} != expected:
        raise VoxmillError(
            f"normalisation: expected the keys low, high and clip, found {sorted(normalisation)}."
        )
    percentiles = _percentiles(statistics)
    values = []
    for key in ("low", "high"):
        name = normalisation[key]
        found = percentiles.get(f"{name:g}") if isinstance(name, int | float) else None
        if found is None:
            raise VoxmillError(
                f"normalisation, {key}: expected one of the percentiles {', '.join(percentiles)}, "
                f"found {name!r}."
            )
        values.append(found)
    clip = normalisation["clip"]
    if not isinstance(clip, int | float) or not clip > 0:
        raise VoxmillError(f"normalisation, clip: expected a number above 0, found {clip!r}.")
    if not values[0] < values[1]:
        raise VoxmillError(
            f"normalisation: expected percentile {normalisation['high']:g} of the volume to be "
            f"above percentile {normalisation['low']:g}, found {values[1]:g} and {values[0]:g}. "
            "Choose percentiles farther apart, or check whether the volume is nearly empty."
        )
    return values[0], values[1], float(clip)


def _percentiles(statistics: dict) -> dict[str, float]:
    """Percentiles of a volume by their names; refuse statistics that another program wrote."""
    found = statistics.get("percentiles")
    numbers = found.values() if isinstance(found, dict) else [None]
    if not all(isinstance(n, int | float) and -1e308 < n < 1e308 for n in numbers):
        raise VoxmillError(
            "statistics: expected percentiles, numbers by their names, found "
            f"{str(found)[:80]}. Delete the file of the statistics and run again."
        )
    return cast(dict[str, float], found)
