"""A colour for each cell that its id alone decides: the same in every file and every program."""

import colorsys
from collections.abc import Iterable
from typing import Any

MOST_LISTED = 4096
"""Colours that the metadata of an image of labels hold, at most. napari shows a label that is not
in the list as if it were not there: there are all of them, or none and viewers choose their own."""

# Steps of the golden ratio: neighbours in number are far from each other in hue.
_GOLDEN = 0.6180339887498949


def colour_of(name: int) -> tuple[int, int, int]:
    """Red, green and blue of a cell's id, 0 to 255.

    >>> colour_of(1), colour_of(2)
    ((90, 134, 242), (179, 242, 90))
    """
    # Three brightnesses besides: hues come near to one another again after some ids.
    value = (0.95, 0.8, 0.65)[name // 13 % 3]
    red, green, blue = colorsys.hsv_to_rgb(name * _GOLDEN % 1, 0.63, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def listed_colours(names: Iterable[int]) -> list[dict[str, Any]]:
    """Colours as OME-Zarr's `image-label` lists them; none where there are too many ids."""
    ids = list(names)
    if len(ids) > MOST_LISTED:
        return []
    return [{"label-value": name, "rgba": [*colour_of(name), 255]} for name in ids]
