"""What a trial of the backends for GPUs found, kept on the disk for each card, driver and network.

The files lie in the cache of the compiled engine, and only those of this user, or of the owner of
voxmill's code, are read. Their names are digests of all that makes a backend faster, slower or
wrong: the card, its driver, the versions of PyTorch, CUDA and Triton, voxmill's own code, the
network's settings, the precision, and the backends that were tried. Without a cache that can be
used, each process tries anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from voxmill.engine.build import trusted
from voxmill.networks import NetworkSettings
from voxmill.runtime.digests import source_digest
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import write_json
from voxmill.runtime.owned import open_own, own_folder
from voxmill.runtime.paths import cache_folder

_DRIVER = Path("/proc/driver/nvidia/version")
_MOST_BYTES = 100_000
# Problems of one process or of one set of weights: the next one tries again.
_OF_THE_MOMENT = ("memory", "it differs from PyTorch")


@dataclass(frozen=True)
class Line:
    """Seconds of a backend over the bytes of its plan.

    Parameters
    ----------
    fixed_s : float
    byte_s : float
        Seconds for each byte.
    """

    fixed_s: float
    byte_s: float

    @classmethod
    def through(cls, sizes: Sequence[int], seconds: Sequence[float]) -> Line:
        """The line through two measurements; through zero where the larger was no slower.

        >>> Line.through([10, 20], [3.0, 4.0])
        Line(fixed_s=2.0, byte_s=0.1)
        """
        (small, large), (first, second) = sizes, seconds
        slope = (second - first) / (large - small) if large > small else 0.0
        fixed = first - slope * small
        if slope <= 0.0 or fixed < 0.0:
            return cls(0.0, second / large)
        return cls(fixed, slope)

    def seconds(self, size: int) -> float:
        """For a box whose plan is `size` bytes."""
        return self.fixed_s + self.byte_s * size


@dataclass(frozen=True)
class Outcome:
    """What a trial found.

    Parameters
    ----------
    size : str
        The larger box, for the log.
    lines : mapping of str to Line
        Backends that gave the reference's numbers.
    problems : mapping of str to str
        Why the others are left out.
    """

    size: str
    lines: Mapping[str, Line]
    problems: Mapping[str, str]


def path_of(
    settings: NetworkSettings, device: str, precision: str, names: Sequence[str]
) -> Path | None:
    """The file of a trial; None where the device is no GPU, so that nothing is kept."""
    if not device.startswith("cuda"):
        return None
    content = card(device) | {
        "network": f"{type(settings).__name__} {asdict(settings)}",
        "precision": precision,
        "backends": list(names),
        "code": source_digest("voxmill.engine.backends"),
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    return cache_folder() / "trials" / f"{digest}.json"


def card(device: str) -> dict[str, Any]:
    """What of a GPU and its software decides about speed; a MIG slice is a card of its own."""
    import torch

    found = torch.cuda.get_device_properties(torch.device(device))
    return {
        "card": found.name,
        "multiprocessors": found.multi_processor_count,
        "memory": found.total_memory,
        "capability": [found.major, found.minor],
        "driver": _driver(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "triton": _version("triton"),
    }


def _driver() -> str:
    """Version of the kernel's driver; empty where it is not told."""
    with contextlib.suppress(OSError):
        if match := re.search(r"\b\d+\.\d+(\.\d+)?\b", _DRIVER.read_text()):
            return match[0]
    return ""


def _version(package: str) -> str:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return ""


def read(path: Path | None, names: Sequence[str]) -> Outcome | None:
    """What an earlier trial found; None if there is none, or one that can't be trusted."""
    if path is None:
        return None
    try:
        with os.fdopen(open_own(path, os.O_RDONLY, owners=trusted()), "rb") as file:
            content = json.loads(file.read(_MOST_BYTES))
        lines = {name: Line(**line) for name, line in content["lines"].items()}
        outcome = Outcome(str(content["size"]), lines, dict(content["problems"]))
    except (OSError, VoxmillError, ValueError, TypeError, KeyError, AttributeError):
        return None
    numbers = [x for line in lines.values() for x in (line.fixed_s, line.byte_s)]
    if not all(isinstance(x, float) and 0.0 <= x < 1e9 for x in numbers):
        return None
    return outcome if set(names) == set(lines) | set(outcome.problems) else None


def write(path: Path | None, outcome: Outcome) -> None:
    """Keep what a trial found, unless a problem may be gone in the next process."""
    fleeting = [p for p in outcome.problems.values() if any(words in p for words in _OF_THE_MOMENT)]
    if path is None or fleeting or not outcome.lines:
        return
    with contextlib.suppress(OSError, VoxmillError):
        own_folder(path.parent, "Set XDG_CACHE_HOME to a folder of yours.", trusted())
        write_json(path, asdict(outcome))
