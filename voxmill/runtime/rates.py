"""How fast this machine was at its last jobs, for the forecast of a run."""

import contextlib
import json
import platform
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import write_json
from voxmill.runtime.paths import cache_folder

_LEAST_S = 1e-3
# A job of less says nothing about a large one.
_LEAST_VOXELS = 1_000_000


@dataclass(frozen=True)
class Rate:
    """The speed of one kind of job.

    Parameters
    ----------
    what : str
        The kind of job, such as "cut".
    voxels_per_s : float
    node : str
        Where it was measured.
    when : str
        The day, UTC.
    """

    what: str
    voxels_per_s: float
    node: str
    when: str


def remember(what: str, voxels: int, seconds: float) -> None:
    """Keep the rate of a job that has ended, if it was no tiny one.

    A cache that cannot be written is no error.

    Parameters
    ----------
    what : str
        The kind of job, with all that makes it faster or slower: model, device, precision.
    voxels : int
    seconds : float
    """
    if voxels < _LEAST_VOXELS:
        return
    day = datetime.now(UTC).date().isoformat()
    rate = Rate(what, voxels / max(seconds, _LEAST_S), platform.node(), day)
    with contextlib.suppress(OSError, VoxmillError):
        write_json(_path(what), asdict(rate))


def recall(what: str) -> Rate | None:
    """The last rate of a kind of job; None where none is known."""
    try:
        return Rate(**json.loads(_path(what).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def predicted_as(weights_sha256: str, settings: dict[str, Any]) -> str:
    """The kind of job of a prediction: its model, device, backend, precision and flips.

    Parameters
    ----------
    weights_sha256 : str
        Digest of the weights.
    settings : dict
        As of the section `prediction`; the device is "cpu" or "cuda".
    """
    chosen = [str(settings[key]) for key in ("device", "backend", "precision", "flips")]
    return "-".join(["predict", weights_sha256[:16], *chosen])


def _path(what: str) -> Path:
    return cache_folder() / "rates" / f"{re.sub(r'[^A-Za-z0-9.-]+', '-', what)}.json"
