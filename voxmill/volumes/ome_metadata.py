"""The OME metadata of a Zarr group: axes, units, levels and their transforms (versions 0.1-0.5)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.header import VoxelSizeUm, to_micrometres
from voxmill.volumes.zarr_nodes import Node, broken, read_node
from voxmill.volumes.zarr_store import join

_PREFIXES = {
    "yocto": -24,
    "zepto": -21,
    "atto": -18,
    "femto": -15,
    "pico": -12,
    "nano": -9,
    "micro": -6,
    "milli": -3,
    "centi": -2,
    "deci": -1,
    "": 0,
    "hecto": 2,
    "kilo": 3,
    "mega": 6,
    "giga": 9,
    "tera": 12,
    "peta": 15,
    "exa": 18,
    "zetta": 21,
    "yotta": 24,
}
_UDUNITS = {
    **{f"{prefix}meter": float(f"1e{power + 6}") for prefix, power in _PREFIXES.items()},
    "angstrom": 1e-4,
    "inch": 25400.0,
    "foot": 304800.0,
    "yard": 914400.0,
    "mile": 1.609344e9,
    "parsec": 3.0856775814913673e22,
}
"""Micrometres per unit of length of the OME-Zarr specification."""

_SHOWN = 10
"""Images that a message lists."""

_WELLS = 1000
"""Wells of a plate that are looked into."""


@dataclass(frozen=True)
class Level:
    """One array of a pyramid: scale and translation per axis, or why they aren't known."""

    path: str
    scale: tuple[float, ...] | None
    translation: tuple[float, ...]
    problem: str = ""


@dataclass(frozen=True)
class Multiscale:
    """A pyramid of arrays: a letter per axis (Z, Y, X, C, T), a unit per axis, levels."""

    version: str
    axes: str
    units: tuple[str | None, ...]
    levels: tuple[Level, ...]

    @property
    def finer_than_first(self) -> int | None:
        """A level with smaller voxels than the first one has, which should be the finest."""
        first = self.levels[0].scale
        for index, level in enumerate(self.levels):
            if first and level.scale and _size(level.scale) < 0.99 * _size(first):
                return index
        return None

    def voxel_size_um(
        self, level: int, zyx: tuple[int, int, int]
    ) -> tuple[VoxelSizeUm | None, VoxelSizeUm | None, str]:
        """Voxel size and translation (z, y, x), micrometres, and where they are from.

        Both are None where a unit or a scale is missing or unknown; the text then says why.
        """
        name, found = f"OME-Zarr {self.version}".strip(), self.levels[level]
        if found.scale is None:
            return None, None, f"{name}: {found.problem}"
        factors = []
        for axis in zyx:
            unit = self.units[axis]
            factor = _micrometres(unit)
            if factor is None:
                what = "has no unit" if unit is None else f"has the unit {unit!r}, no length"
                return None, None, f"{name}: axis {self.axes[axis].lower()} {what}"
            factors.append(factor)
        size = _scaled(found.scale, zyx, factors)
        if not all(math.isfinite(edge) and edge > 0 for edge in size):
            return None, None, f"{name}: a scale of {list(size)}"
        return size, _scaled(found.translation, zyx, factors), f"{name} coordinateTransformations"


def _size(scale: Sequence[float]) -> float:
    return abs(math.prod(scale))


def _scaled(values: Sequence[float], zyx: Sequence[int], factors: Sequence[float]) -> VoxelSizeUm:
    # Decimal powers are inexact: digits past the 12th are noise.
    scaled = (values[axis] * factor for axis, factor in zip(zyx, factors, strict=True))
    z, y, x = (float(f"{value:.12g}") for value in scaled)
    return z, y, x


def _micrometres(unit: str | None) -> float | None:
    name = (unit or "").strip().lower().replace("metre", "meter")
    return _UDUNITS.get(name, to_micrometres(unit))


def ome_attributes(node: Node) -> dict:
    """The OME part of a group's attributes: `ome` from version 0.5 on, else all of them."""
    found = node.attributes.get("ome")
    return found if isinstance(found, dict) else node.attributes


def read_multiscale(node: Node) -> Multiscale | None:
    """The first pyramid of a group; None where the group is no image.

    Raises
    ------
    VoxmillError
        If its metadata are damaged or of wrong types.
    """
    attributes = ome_attributes(node)
    found = attributes.get("multiscales")
    if found is None:
        return None
    origin = node.store.name(node.metadata_key if node.version == 3 else join(node.key, ".zattrs"))
    if not isinstance(found, list) or not found or not isinstance(found[0], dict):
        raise broken(origin, "multiscales", "a list of objects", found)
    content = found[0]
    version = content.get("version", attributes.get("version", ""))
    datasets = content.get("datasets")
    if not isinstance(datasets, list) or not datasets:
        raise broken(origin, "multiscales.datasets", "a list of levels", datasets)
    if "coordinateSystems" in content:
        raise VoxmillError(
            f"{origin}: OME-Zarr of version {version}, with coordinateSystems, is not read: "
            "expected 0.1 to 0.5. Write the image as 0.5, or give the path of its array and "
            "`voxel_size_um`."
        )
    letters, units = _axes(origin, content.get("axes"))
    own = _transform(origin, content.get("coordinateTransformations"), len(letters))
    levels = tuple(_level(origin, item, own, len(letters)) for item in datasets)
    return Multiscale(str(version), letters, units, levels)


def _axes(origin: str, found: object) -> tuple[str, tuple[str | None, ...]]:
    if found is None:  # versions 0.1 and 0.2
        return "TCZYX", (None,) * 5
    if not isinstance(found, list) or not found:
        raise broken(origin, "multiscales.axes", "a list of axes", found)
    items = [{"name": axis} if isinstance(axis, str) else axis for axis in found]  # version 0.3
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise broken(origin, "multiscales.axes", "axes with a name", item)
        if not isinstance(item.get("unit"), str | None):
            raise broken(origin, "multiscales.axes.unit", "text", item["unit"])
    letters = [_letter(item) for item in items]
    spatial = [i for i, item in enumerate(items) if item.get("type") == "space"]
    if len(spatial) == 3 and all(letters[i] not in "ZYX" for i in spatial):
        for i, letter in zip(spatial, "ZYX", strict=True):  # other names: the order tells
            letters[i] = letter
    if "?" in letters or len(set(letters)) < len(letters):
        names = [item["name"] for item in items]
        raise VoxmillError(
            f"{origin}: multiscales.axes: expected axes z, y, x and at most one c and one t, found "
            f"{names}. Write the image with these axes."
        )
    return "".join(letters), tuple(item.get("unit") for item in items)


def _letter(axis: dict) -> str:
    name = axis["name"].upper()
    if name in "ZYXCT" and len(name) == 1:
        return name
    known = {"DEPTH": "Z", "HEIGHT": "Y", "WIDTH": "X"}.get(name)
    return known or {"channel": "C", "time": "T"}.get(str(axis.get("type")), "?")


def _level(origin: str, item: Any, own: tuple, ndim: int) -> Level:
    path = item.get("path") if isinstance(item, dict) else None
    if not isinstance(path, str):
        raise broken(origin, "multiscales.datasets.path", "text", item)
    both = (_transform(origin, item.get("coordinateTransformations"), ndim), own)
    for _, _, problem in both:
        if problem:
            return Level(path, None, (), problem)
    known = [(scale, translation) for scale, translation, _ in both if scale is not None]
    if not known:
        return Level(path, None, (), "no scale")
    scale, translation = known[0]
    for factor, shift in known[1:]:  # that of the whole image comes after that of a level
        translation = tuple(a * b + c for a, b, c in zip(translation, factor, shift, strict=True))
        scale = tuple(a * b for a, b in zip(scale, factor, strict=True))
    return Level(path, scale, translation)


def _transform(origin: str, found: Any, ndim: int) -> tuple:
    """Scale and translation of a list of transforms, or None twice and what is wrong, if any."""
    where = "coordinateTransformations"
    if found is None:
        return None, None, ""
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise broken(origin, where, "a list of objects", found)
    scale, translation = None, (0.0,) * ndim
    for item in found:
        kind = item.get("type")
        if kind == "identity":
            scale = scale or (1.0,) * ndim
        elif kind in ("scale", "translation"):
            if isinstance(item.get("path"), str):
                return None, None, f"a {kind} in a file of its own ({item['path']})"
            values = _numbers(origin, f"{where}.{kind}", item.get(kind), ndim)
            if kind == "scale":
                scale = values
            else:
                translation = values
        else:
            return None, None, f"the transform {kind!r}, not scale or translation"
    return scale, translation, ""


def _numbers(origin: str, key: str, found: Any, count: int) -> tuple[float, ...]:
    fine = isinstance(found, list) and len(found) == count
    if not fine or not all(type(n) in (int, float) for n in found):
        raise broken(origin, key, f"{count} numbers", found)
    return tuple(float(n) for n in found)


def images_below(node: Node) -> list[str]:
    """Keys of the images and arrays in a group that is no image itself.

    Plates (their wells' fields), layouts of bioformats2raw, lists of labels; else the groups and
    arrays that lie in it.
    """
    attributes = ome_attributes(node)
    keys: list[str] = []
    for well in _paths(attributes.get("plate"), "wells")[:_WELLS]:
        inside = read_node(node.store, join(node.key, well))
        fields = _paths(ome_attributes(inside).get("well"), "images") if inside else []
        keys += [join(well, field) for field in fields]
    keys += _paths(attributes.get("well"), "images")
    for name in ("labels", "series"):
        found = attributes.get(name)
        keys += [key for key in found if isinstance(key, str)] if isinstance(found, list) else []
    ome = read_node(node.store, join(node.key, "OME"))
    if not keys and ome is not None:
        series = ome_attributes(ome).get("series")
        keys = [key for key in series if isinstance(key, str)] if isinstance(series, list) else []
    names = keys or [name for name in node.store.folders(node.key) if name != "OME"]
    return [join(node.key, name) for name in names if _is_image(node, name)]


def _paths(parent: object, key: str) -> list[str]:
    items = parent.get(key) if isinstance(parent, dict) else None
    items = items if isinstance(items, list) else []
    paths = [item.get("path") for item in items if isinstance(item, dict)]
    return [path for path in paths if isinstance(path, str)]


def _is_image(node: Node, name: str) -> bool:
    inside = read_node(node.store, join(node.key, name))
    return inside is not None and (inside.is_array or "multiscales" in ome_attributes(inside))


def listed(keys: list[str]) -> str:
    """The first keys of a list for a message, and how many there are.

    >>> listed(["0", "1"])
    '2: 0, 1'
    """
    more = ", ..." if len(keys) > _SHOWN else ""
    return f"{len(keys)}: {', '.join(keys[:_SHOWN])}{more}"
