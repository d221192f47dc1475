"""Output files that are whole or absent, with one writer at a time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from voxmill.runtime import disk, locks
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.fetched import is_no_file


@contextlib.contextmanager
def writing(path: str | Path, needed_bytes: int = 0) -> Iterator[Path]:
    """Yield a scratch path beside `path`; rename it to `path` if the block raises nothing.

    A lock beside the output prevents a second writer: when a scheduler is killed its jobs go on,
    and a rerun would write the same tile. The lock ends with its process, and names the scratch
    path: the next writer of the output removes what a killed one left. The content is on the disk
    before the file gets its name, so that a power cut leaves no half file.

    Parameters
    ----------
    path : path
        The final output. Its folder is created.
    needed_bytes : int
        Size of the output, where it is known: less free space is refused before the block.

    Yields
    ------
    Path
        The scratch file to write. `scratch_folder` of it is free for the writer, too.

    Raises
    ------
    VoxmillError
        If another running process is writing the same output, if the disk is full, or if the
        folder is not writable: the message says what is needed.
    """
    path = Path(path)
    # The suffix stays last: writers such as nibabel choose the format by the suffix.
    scratch = path.with_name(f".{os.uname().nodename}-{os.getpid()}.{path.name}")
    lock_path = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(lock_path) as lock:
            if lock is None:
                raise VoxmillError(
                    f"{path}: another process is writing this file (it holds {lock_path}). "
                    "Wait for it or stop it, then run again."
                )
            try:
                _clear(lock, path)
                disk.check_space(path, needed_bytes)
                lock.truncate(0)
                lock.write(os.fsencode(scratch.name))
                yield scratch
                disk.replace(scratch, path)
            except Exception as error:
                # Before the scratch file is gone, as the message tells its size.
                if (told := disk.explained(error, path, scratch, needed_bytes)) is not None:
                    raise told from None
                raise
            finally:
                scratch.unlink(missing_ok=True)
                lock_path.unlink(missing_ok=True)
    except OSError as error:
        if (told := disk.explained(error, path, scratch, needed_bytes)) is not None:
            raise told from None
        raise


def scratch_folder(scratch: Path) -> Path:
    """The folder beside a scratch file, for writers that need one; it goes with the file."""
    return scratch.with_name(f"{scratch.name}.folder")


def remove_leftovers(folder: str | Path) -> list[Path]:
    """Remove what killed writers left below a folder; what a living one holds stays.

    Parameters
    ----------
    folder : path

    Returns
    -------
    list of Path
        The scratch files and folders.
    """
    removed = []
    for root, _, names in os.walk(folder):
        for name in names:
            if not (name.startswith(".") and name.endswith(".lock")):
                continue
            lock_path = Path(root, name)
            # Somebody else's results may be looked at, but not changed.
            with contextlib.suppress(OSError), _locked(lock_path) as lock:
                if lock is not None and not locks.are_missing():
                    removed += _clear(lock, lock_path.with_name(name[1 : -len(".lock")]))
                    lock_path.unlink()
    return removed


def _clear(lock: BinaryIO, path: Path) -> list[Path]:
    """Remove what the last holder of the lock of an output left, if it was killed.

    Whoever has the lock knows that the writer is dead, on this machine or on another one.
    """
    lock.seek(0)
    name = os.fsdecode(lock.read())
    ours = name.startswith(".") and name.endswith(f".{path.name}") and "/" not in name
    # Without locks a living writer may have written the name.
    if not ours or "\0" in name or locks.are_missing():
        return []
    scratch = path.with_name(name)
    left = [each for each in (scratch, scratch_folder(scratch)) if os.path.lexists(each)]
    for each in left:
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink()
    return left


@contextlib.contextmanager
def _locked(lock_path: Path) -> Iterator[BinaryIO | None]:
    """Yield the lock file, open, if this process now holds it; else None."""
    while True:
        with open(lock_path, "a+b", buffering=0) as file:
            if not locks.lock(file.fileno(), lock_path):
                yield None
                return
            # The last holder may have removed the file between our open and our lock; a lock on a
            # removed file prevents nothing.
            with contextlib.suppress(FileNotFoundError):
                if os.fstat(file.fileno()).st_ino == os.stat(lock_path).st_ino:
                    yield file
                    return


def visible(folder: str | Path, pattern: str) -> list[Path]:
    """Paths below a folder that match, in order, without those of hidden names.

    A file that is being written has a hidden name with the same end, which `glob` finds; so have
    the files that macOS leaves beside copied ones.
    """
    found = Path(folder).glob(pattern)
    return sorted(path for path in found if not path.name.startswith("."))


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with writing(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: object) -> None:
    """Write `content` as indented JSON: the same content gives the same bytes."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def read_json(path: str | Path, what: str = "JSON file") -> dict[str, Any]:
    """Read a JSON object.

    Parameters
    ----------
    path : path
    what : str
        The role of the file, for messages.

    Raises
    ------
    VoxmillError
        If the file is missing or is not a JSON object.
    """
    if is_no_file(Path(path)):
        raise VoxmillError(f"{path}: expected a {what}, found no plain file. Give a file.")
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise VoxmillError(f"{path}: this {what} does not exist.") from None
    except OSError as error:
        raise VoxmillError(f"{path}: this {what} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise VoxmillError(f"{path}: expected a {what} in JSON, found {error}.") from None
    if not isinstance(content, dict):
        raise VoxmillError(f"{path}: expected a JSON object, found {type(content).__name__}.")
    return content


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 digest of a file, which is read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def update_with_pieces(
    digest: hashlib._Hash, path: str | Path, samples: int, sample_bytes: int
) -> None:
    """Update a digest with a file's size and evenly spaced pieces of its bytes.

    Parameters
    ----------
    digest : hashlib object
    path : path
    samples : int
        Number of pieces; neighbouring ones overlap in a small file.
    sample_bytes : int
        Length of a piece.
    """
    size = os.path.getsize(path)
    digest.update(str(size).encode())
    last = max(0, size - sample_bytes)
    with open(path, "rb") as file:
        for sample in range(samples):
            file.seek(last * sample // max(1, samples - 1))
            digest.update(file.read(sample_bytes))
