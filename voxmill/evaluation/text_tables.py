"""Rows of a table in a text file: its encoding, and what stands between its columns.

A file is read line by line in bounded memory. Whatever can't be read is an error that names the
line; no field is ever moved to another column.
"""

import codecs
import csv
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.fetched import why_not_here
from voxmill.runtime.paths import advice

MAX_BYTES = 512 << 20
MAX_LINE = 1 << 20
"""Characters of a line."""

SEPARATORS = {"\t": "tab", ";": "semicolon", ",": "comma", "|": "bar", " ": "blank"}
"""In the order in which they are tried: of a header of several words the blank is no separator."""

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_PIECE = 1 << 20
_NO_TABLE = "Save the points as a table in text (CSV) with the columns z_vox,y_vox,x_vox."


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Parameters
    ----------
    line : int
        Number of the line in the file, from 1.
    text : str
        The line.
    fields : list of str
        Without blanks around them.
    """

    line: int
    text: str
    fields: list[str]


def check_file(path: Path) -> None:
    """Refuse what is no file, or too large for a table of points.

    Raises
    ------
    VoxmillError
    """
    if reason := why_not_here(path):
        raise VoxmillError(f"{str(path)!r}: this ground truth can't be read: {reason}.")
    try:
        status = path.stat()
    except FileNotFoundError:
        raise VoxmillError(f"{path}: this ground truth does not exist. {advice(path)}") from None
    except OSError as error:
        raise VoxmillError(f"{str(path)!r}: this ground truth can't be read ({error}).") from None
    if stat.S_ISDIR(status.st_mode):
        raise VoxmillError(f"{path}: expected a table of points, found a folder. {_NO_TABLE}")
    if status.st_size > MAX_BYTES:
        raise VoxmillError(
            f"{path}: expected a table of points of at most {MAX_BYTES >> 20} MiB, found "
            f"{status.st_size >> 20} MiB. Keep the columns of the positions alone."
        )
    if not os.access(path, os.R_OK):
        raise VoxmillError(f"{path}: this ground truth can't be read. Correct its permissions.")


def find_encoding(path: Path) -> str:
    """The encoding of a text: by its first bytes, else UTF-8, else Windows' cp1252.

    Raises
    ------
    VoxmillError
        If the file is no text.
    """
    with open(path, "rb") as file:
        head = file.read(4096)
        for mark, name in _BOMS:
            if head.startswith(mark):
                return name
        if b"\0" in head:
            return _utf16_without_mark(path, head)
        file.seek(0)
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            while piece := file.read(_PIECE):
                decoder.decode(piece)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "cp1252"
    return "utf-8"


def _utf16_without_mark(path: Path, head: bytes) -> str:
    for name, zeros, letters in (
        ("utf-16-le", head[1::2], head[::2]),
        ("utf-16-be", head[::2], head[1::2]),
    ):
        if zeros.count(0) > 0.9 * len(zeros) and letters.count(0) == 0:
            return name
    raise VoxmillError(
        f"{path}: expected a table of points in text (CSV), found a binary file that begins with "
        f"{head[:8]!r}. If it is a volume, set `kind` to voxels, labels or mask. {_NO_TABLE}"
    )


def read_lines(path: Path, encoding: str) -> Iterator[str]:
    """Lines of a text with their line ends.

    Raises
    ------
    VoxmillError
        If a line is too long, or holds what no text holds.
    """
    # Some bytes mean nothing in cp1252; they can only be part of names.
    with open(path, encoding=encoding, errors="replace", newline="") as file:
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                raise VoxmillError(
                    f"{path}: expected a table of points with lines of at most {MAX_LINE} "
                    f"characters, found a longer line {number}. {_NO_TABLE}"
                )
            if "\0" in line:
                raise VoxmillError(
                    f"{path}: expected a table of points in text (CSV), found a NUL in line "
                    f"{number}: the file is binary or damaged. {_NO_TABLE}"
                )
            yield line


def split_lines(path: Path, lines: Iterator[str], separator: str, before: int = 0) -> Iterator[Row]:
    """Rows of a table that aren't empty.

    Parameters
    ----------
    path : Path
        For messages.
    lines : iterator of str
    separator : str
        One of `SEPARATORS`; " " stands for any blanks.
    before : int
        Lines of the file before these.
    """
    current = ""

    def kept() -> Iterator[str]:
        nonlocal current
        for line in lines:
            current = re.sub(r"\s+", " ", line).strip() if separator == " " else line
            yield current

    reader = csv.reader(kept(), delimiter=separator)
    try:
        for fields in reader:
            fields = [field.strip() for field in fields]
            if any(fields):
                yield Row(before + reader.line_num, current, fields)
    except csv.Error as error:
        raise VoxmillError(
            f"{path}: expected a row of a table in line {before + reader.line_num}, found what "
            f"can't be split into fields ({error}). Look for a quotation mark without its second."
        ) from None


def split_line(path: Path, line: str, separator: str) -> list[str]:
    """Fields of one line, without blanks around them."""
    return next((row.fields for row in split_lines(path, iter([line]), separator)), [])


def _filled(fields: Sequence[str]) -> int:
    """Number of fields without the empty ones at the end."""
    return max((i + 1 for i, field in enumerate(fields) if field), default=0)


class FieldCounter:
    """Brings the rows of a table to the columns of its header, or refuses them.

    Empty fields at the end of a row or of the header come from a separator behind the last column.
    One field before the columns of the header is the row's name, as R writes it, where it can be
    nothing else: it is no number, or a whole number in quotes before one without.

    Parameters
    ----------
    path : Path
        For messages.
    names : sequence of str
        The header.
    separator : str
    """

    def __init__(self, path: Path, names: Sequence[str], separator: str) -> None:
        self.path, self.separator = path, separator
        self.names = list(names)
        self.n_named = _filled(names)
        self.row_names: bool | None = None
        self.rows = 0

    def fit(self, row: Row) -> list[str]:
        """Fields of a row, one for every column of the header.

        Raises
        ------
        VoxmillError
            If their number disagrees; the message names the line.
        """
        fields, n = row.fields, len(self.names)
        if self.row_names is False and len(fields) == n and fields[-1]:
            self.rows += 1
            return fields
        if self.row_names is None:
            self.row_names = _filled(fields) == self.n_named + 1 > n and self._has_name(row)
        if self.row_names:
            if len(fields) < self.n_named + 1 or not self._has_name(row):
                raise self._refusal(row)
            fields = fields[1:]
        if not self.n_named <= len(fields) or _filled(fields) > n:
            raise self._refusal(row)
        self.rows += 1
        return (fields + [""] * n)[:n]

    def _has_name(self, row: Row) -> bool:
        quoted = rf'\s*"\d+"\s*{re.escape(self.separator)}\s*[^"\s]'
        name = row.fields[0].lower()
        number = re.fullmatch(r"[+-]?[\d.,]*(e[+-]?\d+)?|nan|na|inf", name)
        return bool(re.match(quoted, row.text)) if number else True

    def _refusal(self, row: Row) -> VoxmillError:
        n_fields = len(row.fields)
        hint = "Correct the row, or give every column a name in the header."
        if self.separator == "," and n_fields > len(self.names):
            hint = (
                "If these are decimal commas, write numbers with a point, or save the table with "
                "semicolons between the columns. Else give every column a name in the header."
            )
        return VoxmillError(
            f"{self.path}: expected {self.n_named} fields in line {row.line}, as in the header "
            f"({', '.join(self.names[: self.n_named][:12])}), found {n_fields} between "
            f"{SEPARATORS[self.separator]}s: {row.text.strip()[:80]!r}. {hint}"
        )
