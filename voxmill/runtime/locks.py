"""Locks on files, which end with their process; not all file systems have them."""

from __future__ import annotations

import errno
import fcntl
import logging
import os

logger = logging.getLogger(__name__)

# What flock says on file systems without locks, such as some network and FUSE mounts.
_WITHOUT_LOCKS = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL}
_warned: set[str] = set()


def lock(handle: int, path: str | os.PathLike[str], wait: bool = False) -> bool:
    """Lock an open file for this process alone; False if another process holds the lock.

    On a file system without locks, a warning is logged once a process and the work goes on: each
    writer has a scratch file of its own, so two of them cost time but mix nothing.

    Parameters
    ----------
    handle : int
        File descriptor.
    path : path
        The file, for the warning.
    wait : bool
        Whether to wait while another process holds the lock.

    Raises
    ------
    OSError
        If locking fails for another reason.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        _warn(path, error)
    return True


def are_missing() -> bool:
    """Whether this process found a file system without locks."""
    return bool(_warned)


def _warn(path: str | os.PathLike[str], error: OSError) -> None:
    if "locks" not in _warned:
        _warned.add("locks")
        logger.warning(
            "%s: this file system has no locks (flock: %s). voxmill goes on without: do not run "
            "two Snakemakes on one folder, and GPUs of this machine may be given to two jobs.",
            path,
            error.strerror,
        )
