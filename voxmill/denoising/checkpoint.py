"""Checkpoints of a fit, and the signals that ask for one before the job ends."""

import contextlib
import hashlib
import io
import json
import logging
import pickle
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from voxmill.denoising.fitting import Fit
from voxmill.runtime.checked import DamagedFileError, read_checked, write_checked
from voxmill.runtime.finished import take_back

log = logging.getLogger(__name__)


class Terminated(SystemExit):
    """A signal ended the run after a checkpoint; the exit status is 143, as a shell reports it."""

    def __init__(self, message: str):
        super().__init__(143)
        self.message = message

    def __str__(self) -> str:
        return self.message


def fingerprint(**parts: object) -> str:
    """Compute a hex digest of what a fit depends on: JSON values and arrays."""
    digest = hashlib.sha256()
    for name in sorted(parts):
        part = parts[name]
        digest.update(name.encode())
        if isinstance(part, np.ndarray):
            digest.update(f"{part.shape}{part.dtype}".encode() + part.tobytes())
        else:
            digest.update(json.dumps(part, sort_keys=True).encode())
    return digest.hexdigest()


def path_of_fit(path: Path, index: int) -> Path:
    """Path of the checkpoint of one of several fits, counted from 0; the first has `path`."""
    return path.with_suffix(f".{index + 1}{path.suffix}") if index else path


def save(path: Path, fit: Fit, rows: list[dict], identity: str) -> None:
    """Write a checkpoint with a checksum, whole or not at all.

    Parameters
    ----------
    path : Path
    fit : Fit
    rows : list of dict
        The history so far.
    identity : str
        `fingerprint` of the fit.
    """
    content = io.BytesIO()
    torch.save({"identity": identity, "fit": fit.state_dict(), "rows": rows}, content)
    write_checked(path, content.getvalue())


def resume(path: Path, fit: Fit, identity: str) -> list[dict]:
    """Restore a fit from its checkpoint, if there is one with this identity.

    Parameters
    ----------
    path : Path
    fit : Fit
        Gets the state of the checkpoint.
    identity : str
        `fingerprint` of the fit.

    Returns
    -------
    list of dict
        The history up to the checkpoint; empty for a fit that starts from the beginning.
    """
    take_back(path, lambda kept: _identity(kept) == identity)
    if not path.exists():
        return []
    try:
        content = _read(path)
    except DamagedFileError as error:
        log.warning(
            "%s: no readable checkpoint (%s): the fit starts from the beginning", path, error
        )
        return []
    if content["identity"] != identity:
        log.warning(
            "%s: this checkpoint is of other settings or another scan: the fit starts from the "
            "beginning",
            path,
        )
        return []
    fit.load_state_dict(content["fit"])
    log.info("%s: going on after iteration %d", path, fit.iteration)
    rows: list[dict] = content["rows"]
    return rows


def _read(path: Path) -> dict:
    """Content of a checkpoint that is whole."""
    stored = io.BytesIO(read_checked(path, "checkpoint", ""))
    try:
        # Tensors and plain values only: nothing in the file is executed.
        content: dict = torch.load(stored, map_location="cpu", weights_only=True)
        _ = content["identity"], content["fit"], content["rows"]
    except (RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise DamagedFileError(f"{path}: expected a checkpoint of a fit, found {error}") from None
    return content


def _identity(path: Path) -> str | None:
    try:
        return str(_read(path)["identity"])
    except DamagedFileError:
        return None


@contextlib.contextmanager
def termination(received: list[int] | None = None) -> Iterator[list[int]]:
    """Collect SIGTERM, and SIGUSR1 that SLURM sends before the time limit, instead of ending.

    Yields a list that is empty until a signal arrives: the given one, where the main thread
    collects signals for others, in which Python allows no handlers.
    """
    received = [] if received is None else received
    previous = {}
    for number in (signal.SIGTERM, signal.SIGUSR1):
        with contextlib.suppress(ValueError):
            previous[number] = signal.signal(number, lambda n, frame: received.append(n))
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
