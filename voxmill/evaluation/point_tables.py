"""Tables of points: text as many programs write it, and markers in XML.

`FORMATS` lists the formats by suffix. A new one is a function `(path, voxel size, reading) ->
(N, 3) points in voxels` and one line there.
"""

import logging
import math
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np

from voxmill.config.volumes import UNREAD_TABLES
from voxmill.evaluation.point_columns import KNOWN, Choice, TruthReading, choose
from voxmill.evaluation.point_markers import NUMBER, read_markers
from voxmill.evaluation.text_tables import (
    SEPARATORS,
    FieldCounter,
    Row,
    check_file,
    find_encoding,
    read_lines,
    split_line,
    split_lines,
)
from voxmill.geometry import VoxelSize
from voxmill.runtime.errors import VoxmillError
from voxmill.volumes.header import to_micrometres

logger = logging.getLogger(__name__)

HEAD_LINES = 60
"""Lines in which a header is looked for."""
MAX_POINTS = 10_000_000
_COMMA_NUMBER = re.compile(r"[+-]?(\d+,\d*|,\d+)([eE][+-]?\d+)?", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+", re.ASCII)


def read_points(path: str | Path, size: VoxelSize, reading: TruthReading) -> np.ndarray:
    """Read a table of points.

    Parameters
    ----------
    path : path
    size : VoxelSize
        Of the volume.
    reading : TruthReading
        What the configuration says about the table.

    Returns
    -------
    points : (N, 3) float array
        Voxels, z, y, x.

    Raises
    ------
    VoxmillError
        If the file is no table of points, a row or a number can't be read, or the meaning of the
        columns is unclear.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    check_file(path)
    if suffix in UNREAD_TABLES:
        raise VoxmillError(f"{path}: this ground truth is {UNREAD_TABLES[suffix]}.")
    points = FORMATS.get(suffix, read_text)(path, size, reading)
    return points if reading.offset_vox is None else points + np.asarray(reading.offset_vox)


def read_text(path: Path, size: VoxelSize, reading: TruthReading) -> np.ndarray:
    """Points of a text with a header (or with columns by number), whatever separates the fields.

    Lines before the header are skipped, as Imaris writes them.
    """
    lines = read_lines(path, find_encoding(path))
    head = list(islice(lines, HEAD_LINES))
    if reading.by_number:
        start, separator, names = _find_data(path, head, reading)
        # The line before the numbers may be a header; its names matter to messages alone.
        first = start
    else:
        start, separator, names = _find_header(path, head, reading)
        first = start + 1
    choice = choose(str(path), names, head[start], reading)
    if choice is None:
        raise _no_columns(path, head, reading)
    rows = split_lines(path, chain(head[first:], lines), separator, first)
    return _Points(path, names, separator, choice, reading).read(rows, size)


def _find_header(path: Path, head: list[str], reading: TruthReading) -> tuple[int, str, list[str]]:
    """Line, separator and names of the header: the first line that names z, y and x."""
    for number, line in enumerate(head):
        for separator in SEPARATORS:
            if separator not in line:
                continue
            if separator == " " and any(other in line for other in "\t;,|"):
                continue
            text = line.lstrip("#% ") if separator == " " else line
            names = split_line(path, text, separator)
            if len(names) >= 3 and choose(str(path), names, line, reading):
                return number, separator, names
    raise _no_columns(path, head, reading)


def _find_data(path: Path, head: list[str], reading: TruthReading) -> tuple[int, str, list[str]]:
    """First line with numbers in the columns of the configuration."""
    wanted = [int(number) - 1 for number in reading.columns or ()]
    for number, line in enumerate(head):
        for separator in SEPARATORS:
            fields = split_line(path, line, separator)
            if len(fields) > max(wanted) and all(_is_number(fields[i]) for i in wanted):
                return number, separator, [f"column {i + 1}" for i in range(len(fields))]
    raise VoxmillError(
        f"{path}: expected numbers in the columns {wanted[0] + 1}, {wanted[1] + 1}, "
        f"{wanted[2] + 1}, as `columns` says, found none in the first {len(head)} lines."
    )


def _is_number(text: str) -> bool:
    return bool(NUMBER.fullmatch(text) or _COMMA_NUMBER.fullmatch(text))


def _no_columns(path: Path, head: list[str], reading: TruthReading) -> VoxmillError:
    fields = next((found for line in head if (found := _likely_fields(path, line))), None)
    if fields is None:
        return VoxmillError(
            f"{path}: expected a table of points (CSV), found an empty file. For a region without "
            "cells write the header z_vox,y_vox,x_vox alone."
        )
    shown = ", ".join(fields[:12])[:200]
    if reading.columns is not None:
        return VoxmillError(
            f"{path}: expected a header with the columns {list(reading.columns)}, each once, as "
            f"`columns` says, found {shown}."
        )
    if all(_is_number(field) for field in fields if field):
        return VoxmillError(
            f"{path}: expected the columns {KNOWN} in a header, found numbers: {shown}. Write the "
            "header, or say what the columns are with `columns: [number of z, of y, of x]` (from "
            "1) and `units: vox` or `units: um` beside the path."
        )
    return VoxmillError(
        f"{path}: expected the columns {KNOWN}, found {shown}. Rename them, or say what they are "
        "with `columns: [name of z, of y, of x]` and `units: vox` or `units: um` beside the path."
    )


def _likely_fields(path: Path, line: str) -> list[str]:
    text = line[:2000]
    likely = [separator for separator in SEPARATORS if separator in text.strip()] or [","]
    if likely != [" "]:  # blanks beside another separator are parts of names
        likely = [separator for separator in likely if separator != " "]
    return max((split_line(path, text, separator) for separator in likely), key=len)


class _Points:
    """Reads the rows of one table."""

    def __init__(
        self, path: Path, names: list[str], separator: str, choice: Choice, reading: TruthReading
    ) -> None:
        self.path, self.names, self.separator, self.choice = path, names, separator, choice
        self.counter = FieldCounter(path, names, separator)
        self.reading = reading
        self.constants: dict[int, str] = {}
        self.types: set[str] = set()
        self.type_column = names.index("type") if "type" in names else None
        self.point = self.comma = self.decimal = self.disagree = False

    def read(self, rows: Iterator[Row], size: VoxelSize) -> np.ndarray:
        blocks, block = [np.empty((0, 3))], []
        for row in rows:
            if self.counter.rows >= MAX_POINTS:
                raise VoxmillError(
                    f"{self.path}: expected at most {MAX_POINTS} points, found more. Limit the "
                    "ground truth to a part of the volume."
                )
            block.append(self._row(row, size))
            if len(block) == 1 << 16:
                blocks.append(np.array(block))
                block = []
        points = np.concatenate([*blocks, np.array(block).reshape(-1, 3)])
        self._check_commas()
        if len(self.types) > 1:
            logger.warning(
                "%s: the column 'type' holds %s; every row is read as a cell. Leave out the rows "
                "that are none.", self.path, ", ".join(sorted(self.types)[:5]),
            )  # fmt: skip
        return self._to_voxels(points, size)

    def _row(self, row: Row, size: VoxelSize) -> list[float]:
        fields = self.counter.fit(row)
        for index in self.choice.constant:
            self._check_constant(index, fields[index], row)
        if (unit := self.choice.unit_column) is not None:
            self._check_constant(unit, fields[unit], row)
        if self.type_column is not None and len(self.types) < 10:
            self.types.add(fields[self.type_column])
        point = [self._number(fields[index], index, row) for index in self.choice.indices]
        if self.choice.also and not self.disagree:
            self._compare(row, fields, point, size)
        return point

    def _compare(self, row: Row, fields: list[str], point: list[float], size: VoxelSize) -> None:
        """Warn where lengths beside the voxels tell another place, by more than a voxel."""
        told = [self._number(fields[i], i, row) * scale for i, scale in self.choice.also]
        if any(abs(um / edge - vox) > 1 for um, edge, vox in zip(told, size, point, strict=True)):
            self.disagree = True
            logger.warning(
                "%s: in line %d voxels %s and lengths of %s um are another place, with the "
                "volume's voxels of %s um. The voxels are read; where the lengths are right, name "
                "their columns with `columns`.", self.path, row.line, point, told, list(size),
            )  # fmt: skip

    def _check_constant(self, index: int, value: str, row: Row) -> None:
        known = self.constants.setdefault(index, value)
        if value != known:
            raise VoxmillError(
                f"{self.path}: expected one value in column {self.names[index]!r} (a time point, "
                f"channel or unit), found {known!r} and, in line {row.line}, {value!r}. Keep the "
                "rows of one of them; if the column is something else, rename it, or name the "
                "columns of the points with `columns: [z, y, x]` beside the path."
            )

    def _number(self, text: str, index: int, row: Row) -> float:
        if NUMBER.fullmatch(text):
            self.point = self.point or "." in text
            value = float(text)
            if math.isfinite(value):
                return value
        elif _COMMA_NUMBER.fullmatch(text):
            self.comma = True
            self.decimal = self.decimal or not _THOUSANDS.fullmatch(text)
            return float(text.replace(",", "."))
        raise VoxmillError(
            f"{self.path}: expected a number in column {self.names[index]!r} of data row "
            f"{self.counter.rows}, found {text!r} (line {row.line}). Write numbers without a sign "
            "for thousands; remove lines that hold none."
        )

    def _check_commas(self) -> None:
        if not self.comma:
            return
        if self.point:
            raise VoxmillError(
                f"{self.path}: expected decimal points or decimal commas, found both. Write all "
                "numbers with a point."
            )
        if not self.decimal and self.separator != ";":
            raise VoxmillError(
                f"{self.path}: expected numbers with decimal points, found commas that may stand "
                "for decimals or for thousands. Write numbers with a point."
            )
        logger.info("%s: commas in numbers are read as decimal commas", self.path)

    def _to_voxels(self, points: np.ndarray, size: VoxelSize) -> np.ndarray:
        scales: Sequence[float | None] = self.choice.scales
        if (index := self.choice.unit_column) is not None and len(points):
            scales = [self._unit(self.constants[index])] * 3
            if self.reading.offset_vox is None:
                logger.warning(
                    "%s: positions are taken to count from the centre of the first voxel; Imaris "
                    "counts from its corner: set `offset_vox: [-0.5, -0.5, -0.5]` beside the path, "
                    "or [0, 0, 0] to leave them", self.path,
                )  # fmt: skip
        for axis, (scale, edge) in enumerate(zip(scales, size, strict=True)):
            if scale is not None:
                points[:, axis] *= scale / edge
        if self.choice.slices:
            points[:, 0] -= 1
        return points

    def _unit(self, unit: str) -> float | None:
        if unit.lower() in ("px", "pixel", "pixels", "voxel", "voxels", "vox"):
            scale = None
        elif (scale := to_micrometres(unit)) is None:
            raise VoxmillError(
                f"{self.path}: expected voxels or a length in the column of units, found {unit!r}."
            )
        if self.reading.units is not None and (self.reading.units == "vox") != (scale is None):
            raise VoxmillError(
                f"{self.path}: expected {self.reading.units}, as `units` says, found {unit!r} in "
                "the column of units. Correct `units`."
            )
        return scale


FORMATS: dict[str, Callable[[Path, VoxelSize, TruthReading], np.ndarray]] = {
    ".csv": read_text,
    ".tsv": read_text,
    ".txt": read_text,
    ".xml": read_markers,
}
