"""GPUs of a workstation, one job each, across the users of the machine.

A job of the same user is kept off by a lock on a file in a folder of that user's own. A job of
another user cannot see that folder; it is kept off by a name in the kernel (an abstract socket),
which is no file that anybody could plant, replace or fail to clean up. Both end with the process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
from pathlib import Path

from voxmill.runtime import locks
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.owned import open_own, own_folder

SLOTS = "VOXMILL_GPU_SLOTS"
_REMEDY = f"Have it removed, or set {SLOTS} to a folder of yours."


def take(name: str, stack: contextlib.ExitStack) -> bool:
    """Whether this process now holds a GPU of the machine; `stack` releases it.

    Parameters
    ----------
    name : str
        The GPU's name in `CUDA_VISIBLE_DEVICES`.
    stack : ExitStack

    Raises
    ------
    VoxmillError
        If the folder of the locks is a link or belongs to somebody else.
    """
    chosen = os.environ.get(SLOTS)
    folder = own_folder(chosen or default_folder(), _REMEDY, owners={0} if chosen else ())
    safe = re.sub(r"[^A-Za-z0-9-]", "_", name)
    with contextlib.ExitStack() as attempt:
        if _take_file(folder / f"{safe}.lock", bool(chosen), attempt) and (
            chosen or _take_name(f"voxmill-gpu-{safe}", attempt)
        ):
            stack.push(attempt.pop_all())
            return True
    return False


def default_folder() -> Path:
    """The folder of this user's locks."""
    return Path("/tmp") / f"voxmill-gpus-{os.geteuid()}"


def _take_file(path: Path, shared: bool, stack: contextlib.ExitStack) -> bool:
    try:
        # Reading is enough for a lock, and all that another user's file allows.
        with contextlib.suppress(FileExistsError):
            os.close(open_own(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o644))
        handle = open_own(path, os.O_RDONLY, owners=None if shared else ())
    except OSError as error:
        raise VoxmillError(
            f"{path}: expected a file to lock, found {error.strerror}. {_REMEDY}"
        ) from None
    stack.callback(os.close, handle)
    return locks.lock(handle, path)


def _take_name(name: str, stack: contextlib.ExitStack) -> bool:
    holder = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    try:
        holder.bind(b"\0" + name.encode())
    except OSError as error:
        # Other systems than Linux have no such names; there, each user's own locks remain.
        return error.errno != errno.EADDRINUSE
    return True
