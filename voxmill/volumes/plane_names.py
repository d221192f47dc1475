"""The order of the planes of a folder, from the numbers in their names.

The planes of one stack have names of one pattern, in which one number varies in even steps. Other
numbers may be the same in all names, or rise with it as time stamps do. Everything else (channels,
tiles of a mosaic, time points, projections, copies, lost planes) is refused, unless the
configuration chooses by `channel` or `pattern`.
"""

import fnmatch
import itertools
import os
import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.fetched import why_no_file
from voxmill.volumes.plane_messages import several_patterns, several_stacks
from voxmill.volumes.plane_numbers import (
    CHANNEL,
    DEPTH,
    OTHER,
    Number,
    counts_planes,
    goes_along,
    numbers_of,
    uneven_step,
    usual_step,
)

# So few files whose names differ in a channel are no stack; a hundred planes may be called c1 to
# c100.
_FEW = 5

_IMAGES = (".png", ".jpg", ".jpeg", ".jp2", ".bmp")


def tiff_names(path: Path) -> list[str]:
    """Names of the folder's TIFF files, sorted; hidden files and other types are left out.

    Raises
    ------
    VoxmillError
        If there is none, one is no file (a folder, a pipe, a link to nothing), or planes of the
        same pattern are images of another type.
    """
    with os.scandir(path) as entries:
        files = {entry.name: entry for entry in entries if not entry.name.startswith(".")}
    names = sorted(name for name in files if name.lower().endswith((".tif", ".tiff")))
    if not names:
        raise VoxmillError(
            f"{path}: expected a folder of TIFF planes (*.tif, *.tiff), found "
            f"{', '.join(sorted(files)[:3]) or 'an empty folder'}."
        )
    for name in names:
        if not _is_file(files[name]):
            raise VoxmillError(f"{path / name}: expected a plane, but {why_no_file(path / name)}.")
    _check_other_types(path, names, sorted(files.keys() - set(names)))
    return names


def _is_file(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_file()
    except OSError:  # links in a circle
        return False


def _check_other_types(path: Path, names: list[str], others: list[str]) -> None:
    """Refuse planes that are images of another type: the stack would lose them without a word."""
    stems = {os.path.splitext(name)[0] for name in names}
    patterns = {re.sub(r"[0-9]+", "0", stem) for stem in stems}
    for name in others:
        stem, suffix = os.path.splitext(name)
        if suffix.lower() not in _IMAGES or stem in stems:  # beside a plane it is its preview
            continue
        if re.sub(r"[0-9]+", "0", stem) in patterns:
            raise VoxmillError(
                f"{path}: expected planes of one type, found {names[0]} and {name}. Save all "
                "planes as TIFF, or move what is no plane elsewhere."
            )


def order_planes(
    path: Path, names: list[str], channel: int | None = None, pattern: str | None = None
) -> tuple[list[str], int | None]:
    """Put the names of a stack's planes into the order of z.

    Parameters
    ----------
    path : Path
        The folder, for messages.
    names : list of str
        Sorted.
    channel : int, optional
        Which channel, from 0 in rising order of the number in the names.
    pattern : str, optional
        Which files: a glob such as "*_C00_*", or a regular expression whose group (the first one,
        or one called z) is the number that counts the planes, such as "Z([0-9]+)".

    Returns
    -------
    names : list of str
        Plane 0 first.
    channel : int or None
        The channel; None where the names tell no channels apart.

    Raises
    ------
    VoxmillError
        If the names are not those of one stack; shows the names that disagree.
    """
    if pattern is not None and _is_expression(pattern):
        _check_channel(path, channel)
        return _by_expression(path, names, pattern), None
    if pattern is not None:
        names = _by_glob(path, names, pattern)
    if ordered := names if len(names) == 1 else _by_letter(names):
        _check_channel(path, channel)
        return ordered, None
    numbers = numbers_of(names)
    if numbers is None:
        raise VoxmillError(several_patterns(path, names))
    if (which := _channel_number(numbers)) is None or channel is None:
        _check_channel(path, channel)
        return _by_number(path, names, numbers), None
    kept = _of_channel(path, numbers[which], channel)
    names, numbers = [names[i] for i in kept], [number.pick(kept) for number in numbers]
    return names if len(names) == 1 else _by_number(path, names, numbers), channel


def _check_channel(path: Path, channel: int | None) -> None:
    """Refuse a channel where the names tell none apart."""
    if channel:
        raise VoxmillError(f"{path}: channel {channel} doesn't exist: the planes have one, 0.")


def _is_expression(pattern: str) -> bool:
    """Whether a pattern is a regular expression: it has a group with digits, or one called z."""
    return bool(re.search(r"\(\?P<z>|\((?!\?)[^()]*(\\d|\[[^]]*0-9)", pattern))


def _by_glob(path: Path, names: Sequence[str], pattern: str) -> list[str]:
    kept = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
    if not kept:
        raise VoxmillError(
            f"{path}: pattern: expected names such as {pattern}, found {', '.join(names[:3])}."
        )
    return kept


def _by_expression(path: Path, names: Sequence[str], pattern: str) -> list[str]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise VoxmillError(
            f"{path}: pattern: expected a regular expression, found {pattern} ({error})."
        ) from None
    found: list[tuple[Decimal, str]] = []
    group: str | int = "z" if "z" in expression.groupindex else 1
    for name in names:
        if (match := expression.search(name)) is None:
            continue
        text = (match.group(group) or "").replace(",", ".")
        if not re.fullmatch(r"[-+]?[0-9]+(\.[0-9]+)?", text):
            raise VoxmillError(
                f"{path}: pattern: expected a number in the group of {pattern}, found {text!r} in "
                f"{name}."
            )
        found.append((Decimal(text), name))
    if not found:
        raise VoxmillError(
            f"{path}: pattern: expected names in which {pattern} is found, found "
            f"{', '.join(names[:3])}."
        )
    found.sort()
    for (z, name), (following, other) in itertools.pairwise(found):
        if z == following:
            raise VoxmillError(
                f"{path}: pattern: {pattern} finds the number {z} in {name} and in {other}: "
                "expected one plane a number. Give a pattern that only the names of one stack have."
            )
    ordered = [name for _, name in found]
    _check_even(path, [z for z, _ in found], ordered)
    return ordered


def _by_letter(names: Sequence[str]) -> list[str]:
    """Names that one letter counts (a.tif, b.tif, c.tif), in order; none where that is not so."""
    if any(re.search(r"[0-9]", name) for name in names) or len({len(n) for n in names}) != 1:
        return []
    places = [i for i, letters in enumerate(zip(*names, strict=True)) if len(set(letters)) > 1]
    if len(places) != 1:
        return []
    ordered = sorted(names)
    steps = {ord(b[places[0]]) - ord(a[places[0]]) for a, b in itertools.pairwise(ordered)}
    return ordered if steps == {1} else []


def _by_number(path: Path, names: Sequence[str], numbers: Sequence[Number]) -> list[str]:
    """Names in the order of the number that counts planes; refuse what is not one stack."""
    varying = [number for number in numbers if number.varies]
    called_z = [number for number in varying if DEPTH.search(number.before)]
    candidates = [
        number
        for number in called_z[:1] or varying
        if number.distinct and not (CHANNEL.search(number.before) and len(names) <= _FEW)
    ]
    for number in candidates:
        if counts_planes(number, numbers):
            return [names[i] for i in number.order]
    for number in candidates:
        if goes_along(number, numbers):
            positions = [number.values[i] for i in number.order]
            _check_even(path, positions, [names[i] for i in number.order])
    raise VoxmillError(several_stacks(path, names, varying, called_z))


def _check_even(path: Path, positions: Sequence[Decimal], names: Sequence[str]) -> None:
    """Refuse a gap, as a lost plane shifts all that follow, and planes between the others."""
    if (gap := uneven_step(positions)) is None:
        return
    step, usual = positions[gap + 1] - positions[gap], usual_step(positions)
    if step > usual:
        raise VoxmillError(
            f"{path}: planes seem to be missing between {names[gap]} and {names[gap + 1]} (names "
            f"step by {usual:f} elsewhere). Add them, or number the files evenly."
        )
    raise VoxmillError(
        f"{path}: expected planes at even distances, found a step of {step:f} from {names[gap]} to "
        f"{names[gap + 1]} (names step by {usual:f} elsewhere). Remove what is no plane of the "
        "stack, or choose its planes with `pattern`."
    )


def _channel_number(numbers: Sequence[Number]) -> int | None:
    """Which number counts channels: the one called so, else the only one beside z that varies."""
    varying = [i for i, number in enumerate(numbers) if number.varies]
    called = [i for i in varying if CHANNEL.search(numbers[i].before)]
    if called:
        return called[0]
    repeated = [
        i
        for i in varying
        if not numbers[i].distinct
        and not DEPTH.search(numbers[i].before)
        and not OTHER.search(numbers[i].before)
    ]
    # Of two numbers the one with fewer values is no z.
    repeated.sort(key=lambda i: len(set(numbers[i].values)))
    return repeated[0] if repeated and len(varying) == 2 else None


def _of_channel(path: Path, number: Number, channel: int) -> list[int]:
    values = sorted(set(number.values))
    if not 0 <= channel < len(values):
        raise VoxmillError(
            f"{path}: channel {channel} doesn't exist: expected 0 to {len(values) - 1}, as the "
            f"names hold {number.spelled}."
        )
    return [i for i, value in enumerate(number.values) if value == values[channel]]
