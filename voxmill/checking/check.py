"""Verify every file of a run."""

import os
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from voxmill.checking.products import Broken, UncheckedError, check, products


@dataclass
class Found:
    """What a check found.

    Parameters
    ----------
    whole : int
        Files that are what was written.
    broken : list of Broken
    unchecked : list of Path
        Files that nothing is known of.
    missing : list of str
        Files that the configuration asks for and that are not there.
    """

    whole: int = 0
    broken: list[Broken] = field(default_factory=list)
    unchecked: list[Path] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def check_run(folders: Iterable[str], targets: Iterable[str] = (), threads: int = 0) -> Found:
    """Verify all files below some folders, and look for those that a configuration asks for.

    Parameters
    ----------
    folders : iterable of path
    targets : iterable of path
        Files that should be there.
    threads : int
        Files read at once; 0: as many as there are cores.

    Raises
    ------
    VoxmillError
        If a folder does not exist.
    """
    found = Found(missing=[path for path in targets if not Path(path).exists()])
    files: list[Path] = []
    for folder in folders:
        files += products(Path(folder))
    with ThreadPoolExecutor(threads or len(os.sched_getaffinity(0))) as pool:
        checked = pool.map(_outcome, files)
        bar = tqdm(checked, total=len(files), unit="file", disable=not sys.stderr.isatty())
        for path, outcome in zip(files, bar, strict=True):
            if isinstance(outcome, Broken):
                found.broken.append(outcome)
            elif outcome is None:
                found.whole += 1
            else:
                found.unchecked.append(path)
    return found


def _outcome(path: Path) -> Broken | UncheckedError | None:
    try:
        return check(path)
    except UncheckedError as error:
        return error
    except OSError as error:
        return Broken(path, f"it can't be read ({error.strerror})", (path,))


def report(found: Found) -> str:
    """What was found, as text: a line for each broken or missing file."""
    lines = [f"broken   {item.path}: {item.problem}" for item in found.broken]
    lines += [f"missing  {path}" for path in found.missing]
    total = found.whole + len(found.broken)
    lines.append(
        f"{total} files checked: {found.whole} whole, {len(found.broken)} broken; "
        f"{len(found.missing)} missing; {len(found.unchecked)} without a checksum"
    )
    return "\n".join(lines)
