"""Files whose content is not here: links and pointers of git-annex, DataLad and Git LFS.

Also paths that lead nowhere on any system.
"""

import stat
from pathlib import Path

# Pointers are text of a line or three; a real scan is larger.
_POINTER_BYTES = 1024


def why_not_here(path: str | Path) -> str | None:
    """Why the content of a file is not on this disk and what to do; None if it is.

    Parameters
    ----------
    path : path
        A file, a link, or nothing.

    Returns
    -------
    reason : str or None
        For the end of a message; None also where nothing is at the path.
    """
    path = Path(path)
    if reason := _unusable(path):
        return reason
    if is_no_file(path):
        return "it is a pipe, a socket or a device: give a file"
    if path.is_symlink() and not path.exists():
        target = path.readlink()
        if ".git/annex" in target.as_posix():
            return f"its content is not fetched yet: run `datalad get {path}` or `git annex get`"
        return f"it is a link to {target}, which does not exist: copy the file itself"
    if not path.is_file() or path.stat().st_size > _POINTER_BYTES:
        return None
    head = path.read_bytes()
    if head.startswith(b"/annex/objects/") or b".git/annex/objects/" in head:
        return f"its content is not fetched yet: run `datalad get {path}` or `git annex get`"
    if head.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS: run `git lfs pull`"
    return None


def why_no_file(path: str | Path) -> str | None:
    """The same where a folder is none of the things that the path may lead to."""
    if reason := why_not_here(path):
        return reason
    return "it is a folder: give a file, or move it elsewhere" if Path(path).is_dir() else None


def is_no_file(path: Path) -> bool:
    """Whether opening a path would wait for another program, or never end: a pipe, a device."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _unusable(path: Path) -> str | None:
    """Why no system call takes a path: a NUL in it, names too long, links in a circle."""
    try:
        path.stat()
    except (FileNotFoundError, PermissionError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or error
        return f"its path cannot be used ({what}): correct it"
    return None
