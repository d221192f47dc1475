"""Receipts: what made a file, of what, and the digest of what was written.

A job leaves one for each of its outputs, `.made/NAME.json` in the output's folder: other programs
read tables and images as before, and results that are copied take their receipts along. By it a
reader knows a damaged, edited or foreign file, and a job that is started again keeps outputs that
are whole and were made of the same.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from voxmill.runtime.checked import DamagedFileError, read_checked_json, write_checked_json
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import sha256, visible

FOLDER = ".made"
REMAKE = "Delete it and run again: it is made anew, with what depends on it."

VOLATILE = frozenset(
    (
        "threads", "gpus", "record_path", "job_record_path", "checkpoint_path", "log_path",
        "image_path",
    )
)  # fmt: skip
"""Keywords of jobs that decide nothing about the content of their outputs, or that are outputs."""

VOLUMES = ("volume", "source", "truth_volume")
"""Keywords of jobs that are arguments of `voxmill.volumes.read_header`."""

_WHOLE_BYTES = 1 << 30


def receipt_path(path: str | Path) -> Path:
    """Where the receipt of a file lies.

    >>> receipt_path("results/v/net/cells.csv").as_posix()
    'results/v/net/.made/cells.csv.json'

    Nothing strange lies in a Zarr folder; receipts of its files lie beside it.

    >>> receipt_path("results/v/net/probability.ome.zarr/0/zarr.json").as_posix()
    'results/v/net/.made/probability.ome.zarr/0/zarr.json.json'
    """
    path = Path(path)
    images = [parent for parent in path.parents if parent.suffix == ".zarr"]
    folder = images[-1].parent if images else path.parent
    return folder / FOLDER / path.relative_to(folder).with_name(f"{path.name}.json")


def write_receipts(paths: Iterable[str | Path], made_by: str, identity: str) -> None:
    """Leave a receipt for each file, or folder of files, that a job wrote.

    Parameters
    ----------
    paths : iterable of path
    made_by : str
        Name of the job.
    identity : str
        As `identity_of` gives it.
    """
    for path in paths:
        size, digest = _measured(path)
        entry = {"made_by": made_by, "identity": identity, "bytes": size, "sha256": digest}
        write_checked_json(receipt_path(path), entry)


def remove_receipts(paths: Iterable[str | Path]) -> None:
    """Remove the receipts of files that are about to be made anew."""
    for path in paths:
        receipt_path(path).unlink(missing_ok=True)


def check_file(path: str | Path) -> None:
    """Refuse a file that is not what its receipt says; one without a receipt is not looked at.

    Of a folder all files are looked at, and where links lead, but not what is there.

    Raises
    ------
    DamagedFileError
        Names the file and what to do.
    """
    if not receipt_path(path).is_file():
        return
    receipt = _read(path)
    try:
        found = _measured(path, receipt["bytes"])[1]
    except FileNotFoundError:
        raise DamagedFileError(f"{path}: this file does not exist. {REMAKE}") from None
    except OSError as error:
        raise DamagedFileError(f"{path}: this file can't be read ({error}). {REMAKE}") from None
    if found != receipt["sha256"]:
        raise DamagedFileError(
            f"{path}: damaged, edited or of another run: expected what {receipt['made_by']} wrote, "
            f"found another content. {REMAKE}"
        )


def size_differs(path: str | Path) -> bool:
    """Whether a file has another size than its receipt says; of a folder it is not known so."""
    return not os.path.isdir(path) and os.path.getsize(path) != _read(path)["bytes"]


def are_kept(paths: Iterable[str | Path], identity: str) -> bool:
    """Whether all files are there, whole, and made of what an identity says."""
    for path in paths:
        try:
            if not receipt_path(path).is_file() or _read(path)["identity"] != identity:
                return False
            check_file(path)
        except VoxmillError:
            return False
    return True


def _measured(path: str | Path, expected: int | None = None) -> tuple[int, str | None]:
    """Size and digest of a file or folder; no digest where the size is not the expected one."""
    if not os.path.isdir(path):
        size = os.path.getsize(path)
        return size, sha256(path) if expected in (None, size) else None
    # Snakemake leaves a hidden file in folders that it knows of.
    files = [file for file in visible(path, "**/*") if file.is_symlink() or file.is_file()]
    size = sum(file.lstat().st_size for file in files)
    listed = [
        [file.relative_to(path).as_posix(), _content_of(file)]
        for file in (files if expected in (None, size) else ())
    ]
    digest = hashlib.sha256(json.dumps(listed).encode()).hexdigest()
    return size, digest if expected in (None, size) else None


def _content_of(file: Path) -> str:
    return f"to {os.readlink(file)}" if file.is_symlink() else sha256(file)


def _read(path: str | Path) -> dict[str, Any]:
    where = receipt_path(path)
    receipt = read_checked_json(where, f"receipt of {path}", f"Delete both files. {REMAKE[14:]}")
    if not {"made_by", "identity", "bytes", "sha256"} <= set(receipt):
        raise DamagedFileError(f"{where}: expected a receipt of {path}, found another file.")
    return receipt


def identity_of(job: str, code: str, keywords: Mapping[str, Any], outputs: Iterable[str]) -> str:
    """Digest of all that decides about a job's outputs: settings, code, and content of its inputs.

    Parameters
    ----------
    job : str
        Its name.
    code : str
        Digest of its code.
    keywords : mapping
        Arguments of the job. Those named `..._path` or `..._paths` are files and count by their
        content (weights with the card beside them), wherever they lie. A volume, a mapping under
        one of `VOLUMES` with a `path`, counts by the fingerprint that the job gets beside it or
        reads in the plan, else by its file.
    outputs : iterable of str
        Names of the arguments that are outputs; they don't count.
    """
    left_out = VOLATILE | set(outputs)
    known = "fingerprint" in keywords or "plan_path" in keywords
    of_volumes = [
        value["path"] for key, value in keywords.items() if key in VOLUMES and value and known
    ]
    parts = {
        key: _content(key, value, known)
        for key, value in sorted(keywords.items())
        if key not in left_out and value not in of_volumes
    }
    text = json.dumps([job, code, parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _content(key: str, value: Any, known: bool) -> Any:
    if key in VOLUMES and isinstance(value, Mapping):
        chosen = {name: part for name, part in value.items() if name != "path"}
        return chosen if known else [chosen, _digest(Path(value["path"]))]
    if not key.endswith(("_path", "_paths")) or not value:
        return value
    paths = [value] if isinstance(value, str | Path) else list(value)
    return [_digest(Path(path)) for path in paths]


def _digest(path: Path) -> Any:
    if path.is_dir():
        return sorted(
            (file.relative_to(path).as_posix(), *_stamp(file))
            for file in visible(path, "**/*")
            if file.is_file()
        )
    if not path.is_file():
        return str(path)
    if path.stat().st_size > _WHOLE_BYTES:
        return _stamp(path)
    card = path.with_suffix(".json")
    return [sha256(path), sha256(card) if card != path and card.is_file() else None]


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def input_files(keywords: Mapping[str, Any], outputs: Iterable[str]) -> list[str]:
    """Paths of the files among a job's arguments that are inputs."""
    left_out = VOLATILE | set(outputs)
    found: list[str] = []
    for key, value in keywords.items():
        if value and key not in left_out and key.endswith(("_path", "_paths")):
            found += [str(value)] if isinstance(value, str | Path) else map(str, value)
    return [path for path in found if os.path.isfile(path)]
