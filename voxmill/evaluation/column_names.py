"""Axis and unit of a column by its name, as many programs write it."""

import re
import unicodedata
from dataclasses import dataclass

_VOXEL_WORDS = {"vox", "voxel", "voxels", "vx", "px", "pixel", "pixels", "pix"}
_LENGTH_WORDS = {"um", "µm", "μm", "micron", "microns", "nm", "mm", "micrometer", "micrometers"} | {
    "micrometre", "micrometres"
}  # fmt: skip
# Words that stand beside an axis and leave it a position.
_POSITION_WORDS = {
    *("position", "positions", "pos", "centroid", "center", "centre", "coord", "coordinate"),
    *("coordinates", "location", "loc", "of", "mass", "com", "cell", "point", "marker", "global"),
    *("weighted", "peak", "spot", "voxel", "pixel"),
}
_JOINED = re.compile(r"(position|pos|centroid|center|centre|coord)([xyz])")


@dataclass(frozen=True)
class Column:
    """A column that holds a coordinate.

    Parameters
    ----------
    index : int
        Place in the table, from 0.
    axis : str
        z, y or x; slice for planes counted from 1.
    group : str
        The words beside the axis.
    unit : str or None
        vox, a unit of length, or None where the name has none.
    """

    index: int
    axis: str
    group: str
    unit: str | None


def words_of(name: str) -> tuple[list[str], str | None]:
    """The words of a column's name in lower case, and its unit.

    >>> words_of("Position X (µm)")
    (['position', 'x'], 'µm')
    >>> words_of("z_vox")
    (['z'], 'vox')
    """
    text = unicodedata.normalize("NFC", name).strip().strip("\"'").lstrip("#%").strip()
    unit = None
    if match := re.fullmatch(r"(.*?)[\s_]*[(\[]\s*([^()\[\]]*?)\s*[)\]]", text):
        text, unit = match[1], match[2]
    words = [word for word in re.split(r"[\s_.\-/:]+", text.lower()) if word]
    if unit is None and len(words) > 1 and words[-1] in _VOXEL_WORDS | _LENGTH_WORDS:
        unit = words.pop()
    if len(words) == 1 and (match := _JOINED.fullmatch(words[0])):
        words = [match[1], match[2]]
    return words, "vox" if unit and unit.lower() in _VOXEL_WORDS else unit


def column_of(index: int, name: str) -> Column | None:
    """The coordinate that a column holds by its name; None where it holds none."""
    words, unit = words_of(name)
    axes = [word for word in words if word in ("x", "y", "z")]
    others = [word for word in words if word not in ("x", "y", "z")]
    if len(axes) == 1 and set(others) <= _POSITION_WORDS:
        return Column(index, axes[0], " ".join(others), unit)
    if words in (["slice"], ["slice", "z"]):
        return Column(index, "slice", "", unit)
    if len(words) == 2 and words[0] in ("axis", "centroid") and words[1].isdecimal():
        return Column(index, words[1], words[0] + " number", unit)
    return None
