"""A digest that changes with any file of a Zarr array, without reading them all."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from voxmill.runtime.files import update_with_pieces
from voxmill.volumes.arrays import file_stamp
from voxmill.volumes.header import VolumeHeader

Stamp = tuple[int, int, int] | None

LISTED = 100_000
"""Files whose sizes and dates are looked at; of more, this many at even distances."""


def update_fingerprint(
    digest: Any, header: VolumeHeader, samples: int, sample_bytes: int
) -> list[Stamp]:
    """Feed a digest with what a folder of a Zarr array consists of; returns the dates.

    Names of all files of the array, their sizes, the content of its metadata, and pieces of
    `samples` files enter the digest; the dates (to the nanosecond, as far as the file system keeps
    them) and inodes are returned. So a changed, added or lost chunk is noticed. Of more than
    `LISTED` files, names and the dates of folders still enter, but sizes and dates of files at
    even distances alone: there, a chunk that is overwritten in place (not renamed into place) may
    go unnoticed.
    """
    root = Path(header.path) / (header.dataset or "")
    folders, files = _walk(root)
    stamps = [file_stamp(root / name) for name in _evenly(files, LISTED)]
    digest.update("\n".join(files).encode())
    digest.update(json.dumps([stamp and stamp[1] for stamp in stamps]).encode())
    if len(files) > LISTED:
        stamps += [file_stamp(root / name) for name in folders]
    for name in (".zarray", ".zattrs", "zarr.json"):
        if (root / name).is_file():
            digest.update((root / name).read_bytes())
    for name in _evenly(files, samples):
        update_with_pieces(digest, root / name, 2, sample_bytes)
    return stamps


def _walk(root: Path) -> tuple[list[str], list[str]]:
    """Folders and files below a folder, hidden ones left out, in a fixed order."""
    folders, files, pending = [""], [], [""]
    while pending:
        inside = pending.pop()
        with os.scandir(f"{root}/{inside}") as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                name = f"{inside}/{entry.name}" if inside else entry.name
                if entry.is_dir():
                    folders.append(name)
                    pending.append(name)
                else:
                    files.append(name)
    return sorted(folders), sorted(files)


def _evenly(names: list[str], count: int) -> list[str]:
    if len(names) <= count:
        return names
    return [names[i] for i in np.linspace(0, len(names) - 1, count).astype(int)]
