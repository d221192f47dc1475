"""Messages about folders that are not one stack: the names that disagree, and what to do."""

import fnmatch
import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from voxmill.volumes.plane_numbers import CHANNEL, Number, is_stack, numbers_of, template


def several_stacks(
    path: Path, names: Sequence[str], varying: Sequence[Number], called_z: Sequence[Number]
) -> str:
    """Message for names in which no number, or more than one, tells the planes apart.

    Parameters
    ----------
    path : Path
        The folder.
    names : list of str
    varying, called_z : lists of Number
        The numbers that differ among the names, and those of them that are called z or so.
    """
    if not varying or (len(varying) == 1 and not varying[0].distinct):
        first, second = _same_place(names, varying[0] if varying else None)
        return (
            f"{path}: expected one file a plane, found two with the same number: {first} and "
            f"{second}. Keep one of them."
        )
    z = (called_z or sorted(varying, key=lambda n: -len(set(n.values))))[0]
    first, second = names[:2] if z.distinct else _same_place(names, z)
    others = [number for number in varying if number is not z] or [z]
    way = "Choose one stack with `pattern`"
    if any(CHANNEL.search(number.before) for number in others):
        way = "Choose one with `channel`, counted from 0, or some of the files with `pattern`"
    found = "; ".join(number.spelled for number in others)
    return (
        f"{path}: expected one stack, names in which one number counts the planes, found also "
        f"{found}, as in {first} and {second}. {way}, {_example(first, names, z, others)}."
    )


def _same_place(names: Sequence[str], z: Number | None) -> tuple[str, str]:
    """Two names with the same number."""
    if z is None:
        return names[0], names[1]
    second = next(i for i, value in enumerate(z.values) if z.values.index(value) != i)
    return names[z.values.index(z.values[second])], names[second]


def _example(name: str, names: Sequence[str], z: Number, others: Sequence[Number]) -> str:
    """A pattern that chooses one stack: a short glob, a long one, or a regular expression."""
    place = list(names).index(name)
    for number in others:
        tail = re.search(r"[A-Za-z]*[\s_=.-]*$", number.before)
        short = f"*{tail.group(0) if tail else ''}{number.texts[place]}*"
        if _chooses_a_stack(names, short):
            return f'such as "{short}"'
    if name.startswith(z.before):
        after = name[len(z.before) + len(z.texts[place]) :]
        whole = f"{glob.escape(z.before)}*{glob.escape(after)}"
        if _chooses_a_stack(names, whole):
            return f'such as "{whole}"'
    word = re.search(r"[A-Za-z_]*$", z.before)
    return (
        "a regular expression whose group is the number that counts the planes, such as "
        f"'{word.group(0) if word else ''}([0-9]+)'"
    )


def _chooses_a_stack(names: Sequence[str], pattern: str) -> bool:
    kept = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
    if not 1 < len(kept) < len(names):
        return False
    numbers = numbers_of(kept)
    return numbers is not None and is_stack(numbers)


def several_patterns(path: Path, names: Sequence[str]) -> str:
    """Message for names of several patterns: shows the odd ones."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(template(name), []).append(name)
    usual, *odd = sorted(groups.values(), key=len, reverse=True)
    if len(usual) == 1:
        return (
            f"{path}: expected names of one pattern in which a number counts the planes, found "
            f"{', '.join(names[:3])}. Number the files."
        )
    others = [name for group in odd for name in group] or usual
    return (
        f"{path}: expected names of one pattern, found {len(usual)} as {usual[0]} and "
        f"{len(others)} other{'s' if len(others) > 1 else ''}: {', '.join(others[:3])}. Move what "
        "is no plane of the stack elsewhere, or choose its planes with `pattern`, such as "
        f'"{_glob(usual, others)}".'
    )


def _glob(usual: Sequence[str], others: Sequence[str]) -> str:
    """A glob for the usual names alone, if a plain one does."""
    ending = os.path.splitext(usual[0])[1]
    same = 0
    while all(name.startswith(usual[0][: same + 1]) for name in usual) and same < len(usual[0]):
        same += 1
    prefix = usual[0][:same].rstrip("0123456789")
    for pattern in (f"{prefix}*{ending}", re.sub(r"[0-9]", "[0-9]", usual[0])):
        if not any(fnmatch.fnmatchcase(name, pattern) for name in others):
            return pattern
    return f"{prefix}*"
