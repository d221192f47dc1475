"""Notice products that are not what their jobs wrote, also those that no later job reads.

While the Snakefile is parsed, every file that has a receipt is compared with it, by its size, and
by its content where it is younger than its receipt. What is damaged, edited or of another run is
renamed, so that Snakemake misses it and its job makes it anew.
"""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from voxmill.runtime import receipts
from voxmill.runtime.checked import DamagedFileError
from voxmill.runtime.files import visible

SUFFIX = ".damaged"

# Folders of many files that other lists vouch for.
_PASSED = ("tiles", "predictions", "batches", "slabs", "levels", "label_levels")
# Of larger files the size decides; `python -m voxmill check` reads them.
_MOST_BYTES = 1 << 30
# The output that Snakemake knows of, where a job writes others behind it.
_WRITTEN_LAST = ("zarr.json", "dataset_description.json")


def set_damaged_aside(names: Iterable[str]) -> list[str]:
    """Rename the damaged products of some volumes, scans or data sets; a warning for each.

    The names are those of folders in `results`.
    """
    told = []
    for name in names:
        for path in _with_receipts(Path("results", name)):
            try:
                if not _suspicious(path):
                    continue
                receipts.check_file(path)
                # Snakemake touches outputs behind their jobs: each is read once, not at each start.
                with contextlib.suppress(OSError):
                    os.utime(receipts.receipt_path(path))
            except DamagedFileError as error:
                told += _set_aside(path, error)
            except OSError:
                continue  # another run makes it just now
    return told


def written_last(path: Path) -> Path | None:
    """What a job writes behind a file and Snakemake knows of: of an image or of a data set.

    Returns
    -------
    Path or None
        None where it is not there, or where the file is no part of such.
    """
    for parent in path.parents:
        for name in _WRITTEN_LAST:
            last = parent / name
            if last.is_file() and last != path and _belongs(parent):
                return last
    return None


def _with_receipts(folder: Path) -> Iterator[Path]:
    """All paths below a folder that have a receipt, whether they are there or not."""
    for root, folders, _ in os.walk(folder):
        if receipts.FOLDER in folders:
            kept = Path(root, receipts.FOLDER)
            for receipt in visible(kept, "**/*.json"):
                yield Path(root, receipt.relative_to(kept).with_suffix(""))
        folders[:] = sorted(
            name
            for name in folders
            if name[0] != "." and name not in _PASSED and not name.endswith(".zarr")
        )


def _suspicious(path: Path) -> bool:
    """Whether a product has to be read: it is gone behind another one, or younger than written."""
    receipt = receipts.receipt_path(path).stat()
    if not path.exists():
        return written_last(path) is not None
    files = [path, *path.rglob("*")] if path.is_dir() else [path]
    if receipts.size_differs(path):
        return True
    younger = any(file.lstat().st_mtime_ns > receipt.st_mtime_ns for file in files)
    return younger and path.stat().st_size <= _MOST_BYTES


def _set_aside(path: Path, error: DamagedFileError) -> list[str]:
    aside = path.with_name(f".{path.name}{SUFFIX}")
    # Somebody else's results, or a read-only disk, may be looked at, but not changed.
    with contextlib.suppress(OSError):
        if path.exists():
            if aside.is_dir():  # a folder that was damaged before; it would stay in the way
                shutil.rmtree(aside)
            path.replace(aside)
        receipts.receipt_path(path).unlink(missing_ok=True)
        if (last := written_last(path)) is not None:
            last.unlink(missing_ok=True)
    if path.exists():
        return [str(error)]
    what = f" What was there is {aside.name} now." if aside.exists() else ""
    return [f"{str(error).removesuffix(receipts.REMAKE)}It is made anew.{what}"]


def _belongs(folder: Path) -> bool:
    return folder.name.endswith(".ome.zarr") or folder.parent.name == "derivatives"
