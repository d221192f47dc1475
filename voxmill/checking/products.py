"""How each kind of product is verified: a list, the first kind that takes a file verifies it."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxmill.runtime import receipts
from voxmill.runtime.checked import CHECKSUM, MAGIC, read_checked, read_checked_json
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import read_json
from voxmill.tiles.plan import read_plan
from voxmill.volumes import tile_pages
from voxmill.workflow.damaged import written_last

IMAGES = {"labels": "labels.ome.zarr", "label_levels": "labels.ome.zarr"}
IMAGE = "probability.ome.zarr"
"""Folder of the shards that lists beside it tell of, by the folder of the lists."""
LEVELS = ("levels", "label_levels")
"""Folders of lists that lie in another one for each level."""

_PIECE = 1 << 20


@dataclass(frozen=True)
class Broken:
    """A file that is not what was written.

    Parameters
    ----------
    path : Path
    problem : str
        What is wrong, without the path.
    remove : tuple of Path
        What has to go, so that the next run makes the file anew.
    """

    path: Path
    problem: str
    remove: tuple[Path, ...]


def products(folder: Path) -> Iterator[Path]:
    """All files below a folder but hidden ones, receipts and shards: what vouches for these is.

    A folder that has a receipt stands for its files.
    """
    for root, folders, files in os.walk(folder):
        in_image = any(part.endswith(".zarr") for part in Path(root).relative_to(folder).parts)
        visible = sorted(n for n in folders if n[0] != "." and not (in_image and n == "c"))
        whole = [name for name in visible if _has_receipt(Path(root, name))]
        yield from (Path(root, name) for name in whole)
        folders[:] = [name for name in visible if name not in whole]
        for name in sorted(files):
            hidden = name.startswith(".") and not name.startswith(".denoising")
            # A link in an image leads to what is a product itself.
            if not hidden and not (in_image and Path(root, name).is_symlink()):
                yield Path(root, name)


def check(path: Path) -> Broken | None:
    """Verify one file; None where it is whole.

    Raises
    ------
    UncheckedError
        If nothing is known by which it could be verified.
    """
    for takes, verify, goes in KINDS:
        if takes(path):
            try:
                verify(path)
            except (VoxmillError, OSError) as error:
                problem = str(error).removeprefix(f"{path}: ")
                return Broken(path, problem, goes(path))
            return None
    raise UncheckedError(f"{path}: nothing tells whether this file is whole")


class UncheckedError(VoxmillError):
    """A file without a checksum."""


def _has_receipt(path: Path) -> bool:
    return receipts.receipt_path(path).is_file()


def _with_receipt(path: Path) -> tuple[Path, ...]:
    last = written_last(path)
    return path, receipts.receipt_path(path), *([last] if last else [])


def _alone(path: Path) -> tuple[Path, ...]:
    return (path,)


def _lists_shards(path: Path) -> bool:
    return path.suffix == ".json" and bool(_shards(path))


def _image_of(path: Path) -> Path:
    """The level of the image that a list of shards is about."""
    of_level = path.parents[1].name in LEVELS
    kind = path.parents[1] if of_level else path.parent
    level = path.parent.name if of_level else "0"
    return kind.parent / IMAGES.get(kind.name, IMAGE) / level


def _shards(path: Path) -> list[dict[str, Any]]:
    try:
        content = read_json(path)
    except VoxmillError:
        return []
    found = content.get("shards", [content.get("shard")])
    needed = {"key", "bytes", "sha256"}
    return [entry for entry in found if isinstance(entry, dict) and needed <= set(entry)]


def _check_shards(path: Path) -> None:
    read_checked_json(path)
    receipts.check_file(path)
    for entry in _shards(path):
        _check_shard(_image_of(path) / entry["key"], entry)


def _check_shard(shard: Path, entry: dict[str, Any]) -> None:
    # An empty shard has no file.
    if not entry["bytes"]:
        return
    if not shard.is_file():
        raise VoxmillError(f"its shard {shard} is missing")
    with open(shard, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != entry["sha256"]:
        raise VoxmillError(f"its shard {shard} is damaged: it doesn't fit its checksum")


def _with_shards(path: Path) -> tuple[Path, ...]:
    lost = []
    for entry in _shards(path):
        shard = _image_of(path) / entry["key"]
        try:
            _check_shard(shard, entry)
        except (VoxmillError, OSError):
            lost.append(shard)
    # Without the metadata the image is made whole again, whatever of it is there.
    root = _image_of(path).with_name("zarr.json")
    return path, receipts.receipt_path(path), root, *lost


def _is_json(path: Path) -> bool:
    if path.suffix != ".json":
        return False
    with open(path, "rb") as file:
        head, end = file.read(_PIECE), b""
        if path.stat().st_size > _PIECE:
            file.seek(-min(_PIECE, path.stat().st_size), os.SEEK_END)
            end = file.read()
    return f'"{CHECKSUM}"'.encode() in head + end or not _parses(path)


def _parses(path: Path) -> bool:
    try:
        read_json(path)
    except VoxmillError:
        return False
    return True


def _is_tile(path: Path) -> bool:
    return path.suffix == ".tif" and path.parent.name in ("tiles", "predictions")


def _check_tile(path: Path) -> None:
    """Every page against its checksum, and the tile against the plan."""
    plan_path = path.parents[1 if path.parent.name == "tiles" else 2] / "plan.json"
    description = _description(path)
    shape, dtype = description["shape"], np.dtype(description["dtype"])
    keys = {}
    # A broken plan is told once, by itself.
    with contextlib.suppress(VoxmillError):
        keys["tile"] = read_plan(plan_path).tile(path.stem).key
    with tile_pages(path, shape, dtype, keys, receipts.REMAKE) as pages:
        for z in range(pages.shape[0]):
            pages.read(z)


def _description(path: Path) -> dict[str, Any]:
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            content = json.loads(tif.pages.first.description)
        np.dtype(content["dtype"]), [int(edge) for edge in content["shape"]]
    except Exception as error:  # tifffile raises many kinds on damaged files
        raise VoxmillError(f"expected a tile, found a damaged file ({error})") from None
    return dict(content)


def _is_container(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC or path.name.startswith(".denoising")


KINDS: tuple[
    tuple[Callable[[Path], bool], Callable[[Path], object], Callable[[Path], tuple[Path, ...]]], ...
] = (
    # A list has a receipt where a job looks for its own: its shards have to be whole too.
    (_lists_shards, _check_shards, _with_shards),
    (_has_receipt, receipts.check_file, _with_receipt),
    (_is_tile, _check_tile, _alone),
    (_is_json, read_checked_json, _alone),
    (_is_container, read_checked, _alone),
)
"""What takes a file, what verifies it (and raises), and what goes with it where it is broken."""
