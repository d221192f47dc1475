"""Checkpoints of finished jobs: kept until the run that needed them has ended well.

A job may be killed after its outputs were written and before Snakemake knew that it was complete;
Snakemake then does it again. With the last checkpoint still there it ends at once, with the same
result, and does not begin again.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

SUFFIX = ".finished"


def finished_path(path: str | Path) -> Path:
    """Name of a checkpoint once its job is finished.

    >>> finished_path("results/scan/.denoising.pt").as_posix()
    'results/scan/.denoising.pt.finished'
    """
    path = Path(path)
    return path.with_name(path.name + SUFFIX)


def finish(path: str | Path) -> None:
    """Mark the checkpoint of a job whose outputs are written; nothing where there is none."""
    if Path(path).exists():
        os.replace(path, finished_path(path))


def take_back(path: str | Path, fits: Callable[[Path], bool]) -> None:
    """Give the checkpoint of a finished job its name back, if the same job is done again.

    Parameters
    ----------
    path : path
        The checkpoint of a running job.
    fits : callable
        Whether a checkpoint is whole and of the same settings, data and code.
    """
    kept = finished_path(path)
    if not Path(path).exists() and kept.exists() and fits(kept):
        os.replace(kept, path)


def remove_finished(paths: Iterable[str | Path]) -> None:
    """Remove the checkpoints of finished jobs, by the names that they had while they ran.

    A name may hold `*`.
    """
    for path in map(finished_path, paths):
        for kept in path.parent.glob(path.name):
            kept.unlink(missing_ok=True)
