"""Files in places that other users may write to: only what is one's own is used."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection
from pathlib import Path

from voxmill.runtime.errors import VoxmillError


def own_folder(path: str | Path, remedy: str, owners: Collection[int] = ()) -> Path:
    """Make a folder that only this user can read, or check one that is there.

    Nothing that exists is changed. A link is never followed at the end of the path: another user
    may have put it there.

    Parameters
    ----------
    path : path
    remedy : str
        What to do about a folder of somebody else; the end of the message.
    owners : collection of int
        Other users whose folder will do, such as the administrator (0). In a folder of this user,
        nobody else may write; in one of theirs, what they allow holds.

    Raises
    ------
    VoxmillError
        If it is a link or no folder, belongs to somebody else, or all may write there (those with
        a sticky bit let nobody replace files of others).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    mine = found.st_uid == os.geteuid()
    if stat.S_ISLNK(found.st_mode) or not stat.S_ISDIR(found.st_mode):
        problem = "expected a folder, found a link or a file"
    elif not mine and found.st_uid not in owners:
        problem = f"expected a folder of yours, found one of user {found.st_uid}"
    elif mine and found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        problem = f"others may write to this folder (mode {stat.S_IMODE(found.st_mode):o})"
    else:
        return path
    raise VoxmillError(f"{path}: {problem}. {remedy}")


def open_own(path: Path, flags: int, mode: int = 0o600, owners: Collection[int] | None = ()) -> int:
    """Open a regular file without following a link; returns the file descriptor.

    Parameters
    ----------
    path : Path
    flags, mode : int
        As for `os.open`.
    owners : collection of int, optional
        Other users whose file will do; None for all, such as for one to lock in a shared folder.

    Raises
    ------
    OSError
        If it cannot be opened, or is a link.
    VoxmillError
        If it is no regular file, or of somebody else.
    """
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    found = os.fstat(handle)
    known = owners is None or found.st_uid in {os.geteuid(), *owners}
    if stat.S_ISREG(found.st_mode) and known:
        return handle
    os.close(handle)
    raise VoxmillError(
        f"{path}: expected a regular file of yours, found one of user {found.st_uid} "
        f"(mode {found.st_mode:o}). Delete it or choose another folder."
    )
