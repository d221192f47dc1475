"""Paths: what may be wrong with one, files that come with voxmill, the cache of this machine."""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_MOST_NAMES = 2000


def cache_folder() -> Path:
    """Folder of what this machine keeps between runs: compiled libraries, rates of jobs."""
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "voxmill"
    return ROOT / ".cache" / "voxmill"


def shipped(path: str) -> str:
    """A path as it is, or where it leads nowhere the file of that name that comes with voxmill.

    Relative paths count from the working folder. In another one than the repository's
    (`--directory`, `--snakefile`, a workflow that uses this one as a module), the shipped models
    and the demo's configuration are found all the same.

    Returns
    -------
    str
        The path itself where it exists, or where there is no such file in the repository either.
    """
    if os.path.isabs(path) or os.path.exists(path) or not (ROOT / path).is_file():
        return path
    return str(ROOT / path)


def advice(path: str | Path) -> str:
    """What to do about a path that does not exist, in one sentence.

    voxmill expands neither `~` nor `$NAME`: jobs on other machines would expand them to something
    else. The advice is the whole path to write.

    Examples
    --------
    >>> advice("file:///data/v.tif")
    'Addresses are not read: write the whole path alone, /data/v.tif.'
    """
    text = os.fspath(path)
    if match := re.match(r"file:/+(?=/)|file:(?=/)", text, re.IGNORECASE):
        return f"Addresses are not read: write the whole path alone, {text[match.end() :]}."
    if text.startswith("~") or re.search(r"\$\w|\$\{", text):
        whole = os.path.expandvars(os.path.expanduser(text))
        found = "" if whole == text else f", {whole}"
        return f"~ and $NAME are not expanded: write the whole path{found}."
    if re.match(r"[A-Za-z]:[\\/]", text) or ("\\" in text and "/" not in text):
        return "This is a path of Windows: write it as this system has it, with /."
    if text != text.strip():
        return "It begins or ends with blanks: remove them."
    if near := _near(Path(text)):
        return f"Did you mean {near}?"
    if not os.path.isabs(text):
        return f"Correct its path: relative ones count from the working folder, {os.getcwd()}."
    return "Correct its path."


def _near(path: Path) -> str | None:
    """A file of nearly the same name in the first folder above that exists."""
    for name, folder in zip((path, *path.parents), path.parents, strict=False):
        try:
            with os.scandir(folder) as entries:
                names = [entry.name for entry, _ in zip(entries, range(_MOST_NAMES), strict=False)]
        except (OSError, ValueError):
            continue
        wanted = _plain(name.name)
        same = [found for found in names if _plain(found) == wanted]
        near = same or difflib.get_close_matches(name.name, names, n=1, cutoff=0.8)
        return str(folder / near[0]) if near else None
    return None


def _plain(name: str) -> str:
    """A name without what eyes hardly see: capitals, and the two ways to write an umlaut."""
    return unicodedata.normalize("NFC", name).casefold()
