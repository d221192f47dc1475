"""Checkpoints of a fit, and the signal to write one and end."""

import contextlib
import hashlib
import json
import logging
import pickle
import signal
from collections.abc import Iterator
from pathlib import Path

import torch

from voxmill.runtime.files import writing

log = logging.getLogger(__name__)


class Terminated(SystemExit):
    """The run was asked to end and has written a checkpoint; exit status 143, as a shell's."""

    def __init__(self, message: str):
        super().__init__(143)
        self.message = message

    def __str__(self) -> str:
        return self.message


def fingerprint(**parts) -> str:
    """Digest of what a fit depends on: JSON values and arrays (by their bytes)."""
    digest = hashlib.sha256()
    for name in sorted(parts):
        part = parts[name]
        digest.update(name.encode())
        if hasattr(part, "tobytes"):
            digest.update(f"{part.shape}{part.dtype}".encode() + part.tobytes())
        else:
            digest.update(json.dumps(part, sort_keys=True).encode())
    return digest.hexdigest()


def path_of_fit(path: Path, index: int) -> Path:
    """Where the checkpoint of one of several fits lies, counted from 0: the first at `path`."""
    return path.with_suffix(f".{index + 1}{path.suffix}") if index else path


def save(path: Path, fit, rows: list[dict], identity: str) -> None:
    """Write a checkpoint, whole or not at all.

    Parameters
    ----------
    path : Path
    fit : voxmill.denoising.fitting.Fit
    rows : list of dict
        The history so far.
    identity : str
        `fingerprint` of the fit.
    """
    with writing(path) as scratch:
        torch.save({"identity": identity, "fit": fit.state_dict(), "rows": rows}, scratch)


def resume(path: Path, fit, identity: str) -> list[dict]:
    """Go on from a checkpoint if there is one of this very fit.

    Returns
    -------
    list of dict
        The history up to the checkpoint; empty for a fit that starts anew.
    """
    if not path.exists():
        return []
    try:
        # Tensors and plain values only: nothing in the file is executed.
        content = torch.load(path, map_location="cpu", weights_only=True)
        found = content["identity"]
    except (RuntimeError, EOFError, KeyError, OSError, pickle.UnpicklingError) as error:
        log.warning("%s: no readable checkpoint (%s): starting anew", path, error)
        return []
    if found != identity:
        log.warning("%s: a checkpoint of other settings or another scan: starting anew", path)
        return []
    fit.load_state_dict(content["fit"])
    log.info("%s: going on after iteration %d", path, fit.iteration)
    return content["rows"]


@contextlib.contextmanager
def termination() -> Iterator[list[int]]:
    """Collect SIGTERM (and SLURM's SIGUSR1 before the time limit) instead of dying of it.

    Yields a list that is empty until a signal comes. Outside of the main thread, where Python
    allows no handlers, the signals keep their meaning.
    """
    received: list[int] = []
    previous = {}
    for number in (signal.SIGTERM, signal.SIGUSR1):
        with contextlib.suppress(ValueError):
            previous[number] = signal.signal(number, lambda n, frame: received.append(n))
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
