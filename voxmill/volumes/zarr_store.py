"""Zarr stores, a folder or one zip file: their files and folders by key."""

import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from voxmill.runtime.errors import VoxmillError

METADATA_NAMES = ("zarr.json", ".zarray", ".zgroup", ".zattrs")


class FolderStore:
    """A Zarr store that is a folder."""

    def __init__(self, path: Path):
        self.path = path

    def read(self, key: str) -> bytes | None:
        """Content of a file of the store, None where it is missing."""
        try:
            return (self.path / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError, ValueError):  # no file has a null byte
            return None
        except OSError as error:
            raise VoxmillError(f"{self.path / key}: can't be read ({error.strerror}).") from None

    def folders(self, key: str) -> list[str]:
        """Names of the folders in a folder of the store, numbers in their order."""
        folder = self.path / key
        names = [p.name for p in folder.iterdir() if p.is_dir()] if folder.is_dir() else []
        return _in_order(names)

    def kvstore(self, key: str) -> dict:
        """The place of an array for tensorstore."""
        return {"driver": "file", "path": str((self.path / key).absolute()) + "/"}

    def for_zarr(self, key: str) -> tuple[Any, str]:
        """Store and path of an array for zarr."""
        return str(self.path), key

    def name(self, key: str) -> str:
        """Where a file of the store lies, for messages."""
        return str(self.path / key)


class ZipStore:
    """A Zarr store in a zip file, at its root or in its only folder."""

    def __init__(self, path: Path):
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                self._names = frozenset(archive.namelist())
        except (zipfile.BadZipFile, OSError) as error:
            raise VoxmillError(
                f"{path}: expected a whole zip, found a damaged or truncated one ({error}). Copy "
                "or write the file again."
            ) from None
        self._prefix = ""
        tops = {name.split("/", 1)[0] for name in self._names}
        if not any(name in self._names for name in METADATA_NAMES) and len(tops) == 1:
            self._prefix = tops.pop() + "/"

    def read(self, key: str) -> bytes | None:
        """Content of a file of the store, None where it is missing."""
        if self._prefix + key not in self._names:
            return None
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(self._prefix + key)
        except (zipfile.BadZipFile, OSError, zlib.error) as error:
            raise VoxmillError(
                f"{self.name(key)}: damaged in the zip ({error}). Copy or write the file again."
            ) from None

    def folders(self, key: str) -> list[str]:
        """Names of the folders in a folder of the store, numbers in their order."""
        start = self._prefix + (key + "/" if key else "")
        inside = (name[len(start) :] for name in self._names if name.startswith(start))
        return _in_order({name.split("/", 1)[0] for name in inside if "/" in name})

    def kvstore(self, key: str) -> dict:
        """The place of an array for tensorstore."""
        base = {"driver": "file", "path": str(self.path.absolute())}
        return {"driver": "zip", "base": base, "path": (self._prefix + key).rstrip("/") + "/"}

    def for_zarr(self, key: str) -> tuple[Any, str]:
        """Store and path of an array for zarr."""
        from zarr.storage import ZipStore as Store

        return Store(self.path, mode="r"), (self._prefix + key).rstrip("/")

    def name(self, key: str) -> str:
        """Where a file of the store lies, for messages."""
        return f"{self.path}/{self._prefix}{key}"


Store = FolderStore | ZipStore


def _in_order(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (not name.isdigit(), len(name) * name.isdigit(), name))


def open_store(path: Path) -> Store:
    """The store at a path."""
    return FolderStore(path) if path.is_dir() else ZipStore(path)


def join(*parts: str) -> str:
    """Join keys; "" is the root.

    >>> join("", "0"), join("labels", "../0")
    ('0', '0')
    """
    found: list[str] = []
    for part in PurePosixPath(*parts).parts:
        if part == ".." and found:
            found.pop()
        elif part not in ("..", ".", "/"):
            found.append(part)
    return "/".join(found)
