"""Files with a checksum: a damaged one is named and is never taken for a whole one.

A binary file is a container: magic, length of the content, SHA-256 of both and the content. A JSON
file keeps its form and has one more key, `checksum`, of the canonical text of all others.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import read_json, write_json, writing

MAGIC = b"voxmill checked 1\n"
CHECKSUM = "checksum"
_LENGTH_BYTES, _DIGEST_BYTES = 8, 32
_HEAD_BYTES = len(MAGIC) + _LENGTH_BYTES + _DIGEST_BYTES


class DamagedFileError(VoxmillError):
    """A file that is not what was written."""


def write_checked(path: str | Path, content: bytes) -> None:
    """Write bytes with their checksum, whole or not at all."""
    front = MAGIC + len(content).to_bytes(_LENGTH_BYTES, "little")
    digest = hashlib.sha256(front)
    digest.update(content)
    needed = _HEAD_BYTES + len(content)
    with writing(path, needed_bytes=needed) as scratch, open(scratch, "wb") as file:
        file.write(front + digest.digest())
        file.write(content)


def read_checked(path: str | Path, what: str = "file", remake: str = "Delete it.") -> bytes:
    """Read what `write_checked` wrote.

    Parameters
    ----------
    path : path
    what : str
        The role of the file, for messages.
    remake : str
        What to do about a broken file; the end of the message.

    Raises
    ------
    DamagedFileError
        If the file is missing, cut short, too long, changed or of another kind.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
            front, expected = head[:-_DIGEST_BYTES], head[-_DIGEST_BYTES:]
            if len(head) < _HEAD_BYTES or not front.startswith(MAGIC):
                raise DamagedFileError(
                    f"{path}: expected a {what} with a checksum, found the beginning of another "
                    f"file, or of a damaged one. {remake}"
                )
            content = file.read()
    except OSError as error:
        raise DamagedFileError(f"{path}: this {what} cannot be read ({error}). {remake}") from None
    length = int.from_bytes(front[len(MAGIC) :], "little")
    if length != len(content):
        raise DamagedFileError(
            f"{path}: damaged: expected a {what} of {length} bytes, found {len(content)}. {remake}"
        )
    digest = hashlib.sha256(front)
    digest.update(content)
    if digest.digest() != expected:
        raise DamagedFileError(
            f"{path}: damaged: the content of this {what} does not fit its checksum. {remake}"
        )
    return content


def json_checksum(content: dict[str, Any]) -> str:
    """Hexadecimal SHA-256 of the canonical text of a JSON object, without its own checksum."""
    kept = {key: value for key, value in content.items() if key != CHECKSUM}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_checked_json(path: str | Path, content: dict[str, Any]) -> None:
    """Write a JSON object with its checksum: the same content gives the same bytes.

    Parameters
    ----------
    path : path
    content : dict
        JSON values.
    """
    # As it is read again: tuples become lists, keys become text.
    plain = json.loads(json.dumps(content))
    write_json(path, plain | {CHECKSUM: json_checksum(plain)})


def read_checked_json(
    path: str | Path, what: str = "JSON file", remake: str = "Delete it and run again."
) -> dict[str, Any]:
    """Read what `write_checked_json` wrote, without the checksum; arguments as of `read_checked`.

    Raises
    ------
    VoxmillError
        If the file is missing, is not a JSON object, has no checksum, or does not fit it.
    """
    try:
        content = read_json(path, what)
    except VoxmillError as error:
        raise DamagedFileError(f"{error} {remake}") from None
    return verified(content, path, what, remake)


def verified(content: dict[str, Any], path: str | Path, what: str, remake: str) -> dict[str, Any]:
    """Content of a JSON file without its checksum, which must fit; see `read_checked_json`.

    Raises
    ------
    DamagedFileError
        If there is no checksum, or another one.
    """
    if CHECKSUM not in content:
        raise DamagedFileError(
            f"{path}: expected a {what} with the key {CHECKSUM!r}, found none: another program, "
            f"an earlier voxmill or a hand wrote it. {remake}"
        )
    kept = {key: value for key, value in content.items() if key != CHECKSUM}
    if content[CHECKSUM] != json_checksum(kept):
        raise DamagedFileError(
            f"{path}: damaged or edited: the content of this {what} does not fit its checksum. "
            f"{remake}"
        )
    return kept
