"""Files of an array's shards: their names, and what is there."""

import os
from dataclasses import dataclass
from pathlib import Path

from voxmill.geometry import Triple


@dataclass(frozen=True)
class StoredShard:
    """What was written of one shard.

    Parameters
    ----------
    key : str
        The shard's file below the array's folder.
    bytes : int
        Size of the file; 0 where all voxels are 0 and no file is written.
    sha256 : str
        Of the file; "" where there is none.
    """

    key: str
    bytes: int
    sha256: str

    @property
    def is_empty(self) -> bool:
        """Whether all voxels are 0, so that there is no file."""
        return self.bytes == 0


def shard_key(index: Triple) -> str:
    """The file of a shard below its array's folder.

    >>> shard_key((0, 2, 1))
    'c/0/2/1'
    """
    return "/".join(["c", *map(str, index)])


def shards_in(folder: str | Path) -> set[str]:
    """Keys of all shards that have a file in an array's folder; folders alone are listed."""
    return {
        f"c/{z}/{y}/{x}"
        for z in numbers_in(Path(folder, "c"))
        for y in numbers_in(Path(folder, "c", z))
        for x in numbers_in(Path(folder, "c", z, y))
    }


def numbers_in(folder: Path) -> set[str]:
    """Those names in a folder that are numbers, without locks and files that are being written."""
    return {name for name in names_in(folder) if name.isdecimal()}


def names_in(folder: Path) -> set[str]:
    """Names of all files in a folder, none where it is missing."""
    try:
        return set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return set()
