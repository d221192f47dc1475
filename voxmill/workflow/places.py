"""Folders that Snakemake writes to, looked at before it does: its own errors are tracebacks."""

import os
from collections.abc import Iterable
from pathlib import Path

from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.fetched import why_not_here


def check_places(names: Iterable[str]) -> None:
    """Refuse what stands in the way of a run's folders: a file, a link to nothing or in a circle.

    Parameters
    ----------
    names : iterable of str
        Of the folders of results, below `results`.

    Raises
    ------
    VoxmillError
    """
    for top in ("results", "logs", "benchmarks"):
        for path in (Path(top), *(Path(top, name) for name in names)):
            if os.path.lexists(path) and not path.is_dir():
                found = why_not_here(path) or "it is a file"
                raise VoxmillError(
                    f"{path}: expected a folder to write to, but {found}. Move it elsewhere, or "
                    "run in another folder (--directory)."
                )
