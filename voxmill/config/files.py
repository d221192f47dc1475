"""Configuration files read strictly: what YAML would drop or read as another number is refused.

Snakemake reads the files first, with a reader that keeps the last of two equal keys. Nothing in
them is executed here.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from voxmill.runtime.errors import VoxmillError

_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_MERGE = "tag:yaml.org,2002:merge"
_DEEPEST = 100


def check_files(paths: Iterable[str | Path]) -> None:
    """Refuse configuration files that do not mean what they seem to.

    Parameters
    ----------
    paths : iterable of path
        YAML or JSON files.

    Raises
    ------
    VoxmillError
        Names file and line of a key that stands twice, or of a number in base 8 or 60.
    """
    for path in paths:
        check_text(Path(path).read_text(encoding="utf-8-sig"), str(path))


def read_configuration(path: str | Path) -> dict[str, Any]:
    """The sections of a configuration file, as they are written.

    Raises
    ------
    VoxmillError
        If the file cannot be read, is no YAML of sections, or has a key twice.
    """
    try:
        check_files([path])
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8-sig"))
    except VoxmillError:
        raise
    except OSError as error:
        raise VoxmillError(f"{path}: this file cannot be read: {error.strerror}.") from None
    except (ValueError, yaml.YAMLError) as error:  # ValueError: no UTF-8, a NUL in the path
        raise VoxmillError(f"{path}: expected a configuration, found {error}") from None
    if not isinstance(content, dict):
        raise VoxmillError(f"{path}: expected sections such as volumes and networks, found none.")
    return content


def check_text(text: str, source: str) -> None:
    """Refuse the text of a configuration file, as `check_files` does.

    Parameters
    ----------
    text : str
    source : str
        Name of the file in errors.
    """
    try:
        json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, source))
        return
    except VoxmillError:
        raise
    except (ValueError, RecursionError):
        pass
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        found = " ".join(str(error).split())
        raise VoxmillError(f"{source}: expected YAML, found {found}.") from None
    except RecursionError:
        raise VoxmillError(f"{source}: sections are nested too deep.") from None
    for problem in _problems(root, (), set()):
        raise VoxmillError(f"{source}, {problem}")


def _unique(pairs: Sequence[tuple[str, Any]], source: str) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise VoxmillError(f"{source}: {_twice(key, (), '')}")
        content[key] = value
    return content


def _twice(key: str, section: Sequence[str], first: str) -> str:
    where = f" in {'.'.join(section)}" if section else ""
    return (
        f"the key {key!r} stands twice{where}{first}: only the last would count. Give each its own "
        "name, or remove one."
    )


def _problems(node: Any, section: tuple[str, ...], seen: set[int]) -> Iterator[str]:
    """Problems of a node and of all below it; anchors are looked at once."""
    if node is None or id(node) in seen or len(section) > _DEEPEST:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        first: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            yield from _problems(key, section, seen)
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                name = (key.tag, key.value)
                if name in first:
                    before = f" (first in line {first[name]})"
                    yield f"line {line}: {_twice(key.value, section, before)}"
                first.setdefault(name, line)
            yield from _problems(value, (*section, str(key.value)[:50]), seen)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _problems(value, section, seen)
    elif isinstance(node, yaml.ScalarNode):
        yield from _of_number(node)


def _of_number(node: Any) -> Iterator[str]:
    """A number that is not read as it is written: 1:30 is 90, 010 is 8."""
    if node.tag not in (_INT, _FLOAT) or node.style:
        return
    octal = node.tag == _INT and re.fullmatch(r"[-+]?0[0-7_]+", node.value)
    if ":" not in node.value and not octal:
        return
    line, base = node.start_mark.line + 1, 8 if octal else 60
    yield (
        f"line {line}: expected a decimal number, found {node.value}: YAML reads {node.value} as a "
        f'number in base {base}. Write the decimal number, or "{node.value}" in quotes for a name.'
    )
