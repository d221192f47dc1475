"""What a file system must do: keep what was written, and say what it lacks."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
import shutil
from pathlib import Path

from voxmill.runtime.errors import VoxmillError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
# NumPy, PyTorch and safetensors hide the number of the error.
_FULL_WORDS = re.compile(
    r"no space left|disk quota exceeded|file too large|os error (28|122|27)\b"
    r"|\d+ requested and \d+ written|file write failed|unexpected pos \d+ vs",
    re.IGNORECASE,
)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk before going on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot do it for folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF):
            raise
    finally:
        os.close(handle)


def replace(scratch: Path, path: Path) -> None:
    """Give a finished file its name, so that a power cut leaves the whole file or the old one."""
    if scratch.is_file():
        sync(scratch)
    os.replace(scratch, path)
    sync(path.parent)


def check_space(path: Path, needed_bytes: int) -> None:
    """Refuse to begin a file that the file system has no room for.

    Parameters
    ----------
    path : Path
        The output; its folder exists.
    needed_bytes : int

    Raises
    ------
    VoxmillError
        Says how much is needed and how much is free.
    """
    free = _free_bytes(path.parent)
    # Zero is what some file systems say that do not know; on a full one the writing fails.
    if free and needed_bytes > free:
        raise VoxmillError(_space_message(path, "the disk has too little space", needed_bytes, 0))


def explained(
    error: BaseException, path: Path, scratch: Path, needed_bytes: int = 0
) -> VoxmillError | None:
    """What to tell the user where an output cannot be written; None for any other error.

    Parameters
    ----------
    error : exception
        Whatever a writer raised.
    path, scratch : Path
        The output, and the file that was written instead until it is whole.
    needed_bytes : int
        Size of the whole output, where it is known.
    """
    cause: BaseException | None = error
    while cause is not None:
        found = _explained(cause, path, scratch, needed_bytes)
        if found is not None:
            return found
        cause = cause.__cause__ or cause.__context__
    return None


def _explained(
    error: BaseException, path: Path, scratch: Path, needed_bytes: int
) -> VoxmillError | None:
    if isinstance(error, VoxmillError):
        return None
    number = error.errno if isinstance(error, OSError) else None
    if number in _FULL or (number is None and _FULL_WORDS.search(str(error))):
        why = os.strerror(number or _likely(scratch))
        return VoxmillError(_space_message(path, why, needed_bytes, _size(scratch)))
    if number in _FORBIDDEN and _concerns(error, path):
        return VoxmillError(
            f"{path}: this file cannot be written ({os.strerror(number)}). Make its folder "
            "writable for you, or run in another folder."
        )
    return None


def _likely(scratch: Path) -> int:
    """The number of an error that came without: a limit on the size of files, or a full disk."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return errno.EFBIG if 0 <= limit <= 2 * _size(scratch) else errno.ENOSPC


def _concerns(error: BaseException, path: Path) -> bool:
    """Whether an error names a file beside `path`, or a folder above it, or nothing."""
    if getattr(error, "filename", None) is None:
        return True
    named = Path(os.fsdecode(error.filename))  # type: ignore[attr-defined]
    return named.parent == path.parent or path.is_relative_to(named)


def _space_message(path: Path, why: str, needed_bytes: int, written_bytes: int) -> str:
    needed = f"About {readable(needed_bytes)} are needed" if needed_bytes else "More is needed"
    limit = "" if why != os.strerror(errno.EFBIG) else "or raise the limit (`ulimit -f`) "
    return (
        f"{path}: this file cannot be written: {why}. {needed}, {readable(written_bytes)} were "
        f"written, {readable(_free_bytes(path.parent))} are free in {path.parent}. Free space "
        f"{limit}and run again: what is finished is kept."
    )


def _free_bytes(folder: Path) -> int:
    with contextlib.suppress(OSError):
        return shutil.disk_usage(folder).free
    return 0


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def readable(size: int) -> str:
    """A number of bytes for a reader.

    >>> readable(999), readable(1_500_000)
    ('999 bytes', '1.5 MB')
    """
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
