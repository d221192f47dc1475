"""Where the voxels lie in an HDF5 file: a plain data set, BigDataViewer's layout, or Imaris'."""

import contextlib
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.arrays import check_index
from voxmill.volumes.header import VoxelSizeUm, to_micrometres

_SHOWN = 10
"""Data sets that a message lists."""


@dataclass(frozen=True)
class Wanted:
    """What the configuration chooses."""

    channel: int | None
    level: int | None
    time: int | None
    dataset: str | None


@dataclass(frozen=True)
class Found:
    """An array in the file and what is known of it.

    Parameters
    ----------
    format : str
    dataset : str
        Path of the data set.
    shape : tuple of int
        Its true shape: Imaris pads its data to whole chunks.
    axes : str
        A letter per axis.
    dtype : dtype
        As the voxels are meant: BigDataViewer stores uint16 as int16.
    size, translation : tuple of float or None
        Voxel size and place of the first voxel (z, y, x), micrometres.
    source : str
        Where the voxel size is from, or why it isn't known.
    channel, level, time : int or None
        Chosen; None where the file has just one.
    """

    format: str
    dataset: str
    shape: tuple[int, ...]
    axes: str
    dtype: np.dtype
    size: VoxelSizeUm | None
    source: str
    translation: VoxelSizeUm | None = None
    channel: int | None = None
    level: int | None = None
    time: int | None = None


def find(file: Any, path: Path, wanted: Wanted) -> Found:
    """Find the wanted array in an opened file (h5py.File)."""
    if wanted.dataset is None and "DataSet" in file and "DataSetInfo" in file:
        return _imaris(file, path, wanted)
    if wanted.dataset is None and all(_numbered(file, rf"{name}(\d+)") for name in "ts"):
        return _big_data_viewer(file, path, wanted)
    return _plain(file, path, wanted)


def _plain(file: Any, path: Path, wanted: Wanted) -> Found:
    if wanted.level:
        raise VoxmillError(
            f"{path}: level: {wanted.level} doesn't exist: the file has no pyramid. Choose the "
            "array with `dataset`."
        )
    name = _only_volume(file, path) if wanted.dataset is None else wanted.dataset.strip("/")
    found = _node(file, name)
    if found is None or not hasattr(found, "dtype"):
        what = "a group" if found is not None else "no such path"
        raise VoxmillError(
            f"{path}: dataset: {wanted.dataset}: expected a data set, found {what}. The file has "
            f"{_listed(_data_sets(file))}."
        )
    axes = _axes(found)
    size, source = _element_size(found, axes)
    return Found("HDF5", name, found.shape, axes, found.dtype, size, source)


def _node(parent: Any, name: str) -> Any:
    """What lies at a path; None where nothing does, or a link leads nowhere."""
    try:
        return parent[name]
    except (KeyError, OSError):
        return None


def _data_sets(file: Any) -> list:
    found: list = []
    file.visititems(lambda name, node: found.append(node) if hasattr(node, "dtype") else None)
    return found


def _only_volume(file: Any, path: Path) -> str:
    every = _data_sets(file)
    volumes = [node for node in every if len(node.shape) >= 3 and node.dtype.kind in "buif"]
    if len(volumes) == 1:
        name: str = volumes[0].name.strip("/")
        return name
    raise VoxmillError(
        f"{path}: expected one data set of three or more axes, found {len(volumes)}: "
        f"{_listed(volumes or every)}. Choose one with `dataset`."
    )


def _listed(nodes: list) -> str:
    names = [f"{node.name} {node.shape}" for node in nodes[:_SHOWN]]
    return (", ".join(names) or "no data set") + (", ..." if len(nodes) > _SHOWN else "")


def _axes(node: Any) -> str:
    """A letter per axis: from ilastik's axistags or the labels of the dimensions, else Q."""
    names = [dimension.label for dimension in node.dims]
    with contextlib.suppress(KeyError, TypeError, ValueError):
        names = [axis["key"] for axis in json.loads(text(node.attrs["axistags"]))["axes"]]
    letters = [name.upper() for name in names]
    known = len(letters) == len(node.shape) == len(set(letters))
    known = known and all(letter in ("Z", "Y", "X", "C", "T") for letter in letters)
    return "".join(letters) if known else "Q" * len(node.shape)


def _element_size(node: Any, axes: str) -> tuple[VoxelSizeUm | None, str]:
    """Voxel size of `element_size_um`, as Fiji's HDF5 plugin and ilastik write it: z, y, x."""
    found = node.attrs.get("element_size_um")
    if found is None:
        return None, "HDF5: no attribute element_size_um"
    values = np.asarray(found).ravel()
    if len(values) != 3 or values.dtype.kind not in "iuf" or not (values > 0).all():
        return None, f"HDF5: element_size_um is {values.tolist()}, not three positive numbers"
    z, y, x = (float(f"{value:.7g}") for value in values)
    return (z, y, x), "HDF5 element_size_um"


def text(value: Any) -> str:
    """An attribute as text; Imaris stores an array of single letters."""
    if isinstance(value, np.ndarray):
        value = b"".join(np.asarray(value).astype("S").ravel().tolist())
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _numbered(parent: Any, pattern: str) -> dict[int, str]:
    """Members whose names match, by the number in the name."""
    matches = [re.fullmatch(pattern, name) for name in parent]
    return dict(sorted((int(match[1]), match[0]) for match in matches if match))


def _pick(path: Path, key: str, members: dict[int, str], wanted: int | None, needed: bool) -> str:
    """The member with a number; where there are several, `needed` ones must be chosen."""
    if not members:
        raise VoxmillError(f"{path}: expected a {key}, found none: write the file again.")
    if wanted is None and needed and len(members) > 1:
        raise VoxmillError(
            f"{path}: expected one {key}, found {len(members)}: choose one with `{key}: 0` to "
            f"`{key}: {len(members) - 1}`."
        )
    index = check_index(path, key, len(members), wanted)
    return list(members.values())[index]


def _chosen(members: dict[int, str], wanted: int | None) -> int | None:
    return None if len(members) == 1 else wanted or 0


def _volume_at(parent: Any, path: Path, name: str) -> Any:
    found = _node(parent, name)
    if found is None or len(getattr(found, "shape", ())) != 3:
        raise VoxmillError(
            f"{path}: {parent.name}/{name}: expected a data set of three axes, found "
            f"{'none' if found is None else 'another'}. The file is damaged: write it again."
        )
    return found


def _imaris(file: Any, path: Path, wanted: Wanted) -> Found:
    levels = _numbered(file["DataSet"], r"ResolutionLevel (\d+)")
    level = file["DataSet"][_pick(path, "level", levels, wanted.level, False)]
    times = _numbered(level, r"TimePoint (\d+)")
    time = level[_pick(path, "time", times, wanted.time, True)]
    channels = _numbered(time, r"Channel (\d+)")
    channel = time[_pick(path, "channel", channels, wanted.channel, True)]
    data = _volume_at(channel, path, "Data")
    image = _node(file, "DataSetInfo/Image")
    info = {} if image is None else {name: text(image.attrs[name]) for name in image.attrs}
    first = wanted.level in (None, 0)
    shape = _imaris_shape(path, channel, info if first else {}, data.shape)
    size, translation, source = _imaris_scale(info, shape)
    return Found(
        "Imaris", data.name.strip("/"), shape, "ZYX", data.dtype, size, source, translation,
        _chosen(channels, wanted.channel), _chosen(levels, wanted.level),
        _chosen(times, wanted.time),
    )  # fmt: skip


def _imaris_shape(path: Path, channel: Any, info: dict, stored: tuple) -> tuple[int, ...]:
    """The true shape, in the attributes of the channel or, for level 0, of the image."""
    shape = []
    for axis, padded in zip("ZYX", stored, strict=True):
        found = channel.attrs.get(f"ImageSize{axis}", info.get(axis, padded))
        try:
            length = int(text(found))
        except ValueError:
            length = -1
        if not 0 < length <= padded:
            raise VoxmillError(
                f"{path}: ImageSize{axis} of {channel.name}: expected 1 to {padded}, found "
                f"{text(found)!r}: the file is damaged. Write it again."
            )
        shape.append(length)
    return tuple(shape)


def _imaris_scale(info: dict[str, str], shape: tuple) -> tuple:
    """Voxel size, place of the first voxel's centre, source; the level's shape shares the extent.

    ExtMin0 and ExtMax0 are the faces of the volume along x, 1 along y, 2 along z.
    """
    factor = to_micrometres(info.get("Unit"))
    if factor is None:
        unit = f"unit {info['Unit']!r} is no length" if "Unit" in info else "no unit"
        return None, None, f"Imaris: DataSetInfo/Image has {unit}"
    try:
        low = [float(info[f"ExtMin{axis}"]) for axis in (2, 1, 0)]
        high = [float(info[f"ExtMax{axis}"]) for axis in (2, 1, 0)]
    except (KeyError, ValueError):
        return None, None, "Imaris: DataSetInfo/Image has no ExtMin and ExtMax"
    edges = [(b - a) / n for a, b, n in zip(low, high, shape, strict=True)]
    if not all(edge > 0 and np.isfinite(edge) for edge in edges):
        return None, None, f"Imaris: a voxel of {edges} by ExtMin and ExtMax"
    size = tuple(float(f"{edge * factor:.9g}") for edge in edges)
    first = tuple(float(f"{(a + e / 2) * factor:.9g}") for a, e in zip(low, edges, strict=True))
    return size, first, "Imaris ExtMin and ExtMax"


def _big_data_viewer(file: Any, path: Path, wanted: Wanted) -> Found:
    times = _numbered(file, r"t(\d+)")
    time = file[_pick(path, "time", times, wanted.time, True)]
    setups = _numbered(time, r"s(\d+)")
    name = _pick(path, "channel", setups, wanted.channel, True)
    levels = _numbered(time[name], r"(\d+)")
    level = _pick(path, "level", levels, wanted.level, False)
    data = _volume_at(time[name], path, f"{level}/cells")
    number = next(number for number, member in setups.items() if member == name)
    size, source = _setup_size(path.with_suffix(".xml"), number)
    factors = _node(file, f"{name}/resolutions")
    row = wanted.level or 0
    if size is not None and factors is not None and len(factors) > row:
        z, y, x = (float(f"{a * b:.9g}") for a, b in zip(size, factors[row][::-1], strict=True))
        size = z, y, x
    dtype = np.dtype("uint16") if data.dtype == np.int16 else data.dtype
    return Found(
        "BigDataViewer HDF5", data.name.strip("/"), data.shape, "ZYX", dtype, size, source, None,
        _chosen(setups, wanted.channel), _chosen(levels, wanted.level), _chosen(times, wanted.time),
    )  # fmt: skip


def _setup_size(path: Path, number: int) -> tuple[VoxelSizeUm | None, str]:
    """Voxel size of a view setup in the XML beside the file: x y z there, z, y, x here."""
    if not path.is_file():
        return None, f"BigDataViewer: {path.name} is not beside the file"
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError) as error:
        raise VoxmillError(f"{path}: expected the XML of BigDataViewer, found {error}.") from None
    for setup in root.iter("ViewSetup"):
        if (setup.findtext("id") or "").strip() != str(number):
            continue
        unit = (setup.findtext("voxelSize/unit") or "").strip()
        factor = to_micrometres(unit)
        if factor is None:
            return None, f"BigDataViewer: {path.name}: unit {unit!r} is no length"
        try:
            edges = [float(n) for n in (setup.findtext("voxelSize/size") or "").split()]
        except ValueError:
            edges = []
        if len(edges) != 3 or not all(np.isfinite(edge) and edge > 0 for edge in edges):
            return None, f"BigDataViewer: {path.name}: no voxel size of three positive numbers"
        x, y, z = (edge * factor for edge in edges)
        return (z, y, x), f"BigDataViewer {path.name}"
    return None, f"BigDataViewer: {path.name} has no view setup {number}"
