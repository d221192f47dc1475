"""Files that hold a part of a volume alone: the later files of a set of several TIFFs."""

import html
import re
from pathlib import Path

import tifffile

from voxmill.runtime.errors import VoxmillError

# Micro-Manager calls the files of one stack x.ome.tif, x_1.ome.tif, x_2.ome.tif.
_LATER = re.compile(r"^(?P<stem>.+)_[0-9]+(?P<ending>(\.ome)?\.tiff?)$", re.I)


def check_part(path: Path, tif: tifffile.TiffFile) -> None:
    """Refuse a file that is known to hold a part of a volume, and name the one to give.

    The first file of a set, and any whose own metadata list all files, are read with the others.

    Raises
    ------
    VoxmillError
    """
    xml = tif.ome_metadata or "" if tif.is_ome else ""
    if only := re.search(r"<(?:\w+:)?BinaryOnly\b[^>]*", xml):
        named = re.search(r"MetadataFile\s*=\s*[\"']([^\"']*)", only.group(0))
        _check_binary_only(path, html.unescape(named.group(1)) if named else "")
    later = _LATER.match(path.name)
    if later is None or tif.is_ome:
        return
    first = path.with_name(later["stem"] + later["ending"])
    if tif.pages.first.is_micromanager or (".ome." in path.name.lower() and _is_ome(first)):
        _refuse_part(path, first)


def _check_binary_only(path: Path, name: str) -> None:
    metadata = path.with_name(Path(name).name) if name else path
    if metadata.suffix.lower() in (".tif", ".tiff") and metadata != path:
        _refuse_part(path, metadata)
    if not metadata.is_file() or metadata == path:
        return  # as far as this file tells, it is whole
    text = metadata.read_text(encoding="utf-8", errors="replace")
    files = set(re.findall(r"<(?:\w+:)?UUID\b[^>]*FileName\s*=\s*[\"']([^\"']*)", text))
    if len(files) > 1:
        raise VoxmillError(
            f"{path}: expected a whole volume, found one of the {len(files)} files that "
            f"{metadata.name} describes. Join them into one, for example with `bfconvert "
            f"{metadata.name} volume.ome.tif` of Bio-Formats."
        )


def _is_ome(path: Path) -> bool:
    if not path.is_file():
        return False
    with tifffile.TiffFile(path) as tif:
        return bool(tif.is_ome)


def _refuse_part(path: Path, first: Path) -> None:
    there = first.is_file()
    raise VoxmillError(
        f"{path}: expected a whole volume, found a later file of a set whose first one is "
        f"{first.name}. "
        + (
            f"Give {first}; the others are read with it."
            if there
            else f"{first.name} is missing: put all files of the set into one folder, under their "
            "first names, and give that one."
        )
    )
