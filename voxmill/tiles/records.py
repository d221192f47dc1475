"""JSON files that voxmill wrote for its own later jobs, read key by key and checked."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from voxmill.geometry import Box, Triple, three
from voxmill.runtime.errors import VoxmillError


@dataclass(frozen=True)
class Record:
    """A JSON object of a file.

    Parameters
    ----------
    content : dict
    where : str
        The file, and the place in it: what errors begin with.
    remake : str
        What the user does about a broken file; what errors end with.
    """

    content: dict[str, Any]
    where: str
    remake: str

    def text(self, key: str) -> str:
        """The string at a key."""
        return str(self._checked(key, "a string", lambda value: isinstance(value, str)))

    def number(self, key: str) -> int:
        """The whole number at a key, 0 or more."""
        holds = "a whole number from 0"
        return int(self._checked(key, holds, lambda value: _is_number(value, int) and value >= 0))

    def triple(self, key: str) -> Triple:
        """The three whole numbers z, y, x at a key."""
        return three(self._checked(key, "three whole numbers (z, y, x)", _is_triple))

    def lengths(self, key: str) -> tuple[float, float, float]:
        """The three numbers z, y, x above 0 at a key, just as they stand in the file."""
        return three(self._checked(key, "three numbers above 0 (z, y, x)", _are_lengths))

    def box(self, start: str, stop: str) -> Box:
        """The box whose corners stand at two keys."""
        try:
            return Box(self.triple(start), self.triple(stop))
        except VoxmillError as error:
            if str(error).startswith(self.where):
                raise
            raise self.error(f"{start} and {stop}: {error}") from None

    def object(self, key: str) -> "Record":
        """The JSON object at a key."""
        content = self._checked(key, "a JSON object", lambda value: isinstance(value, dict))
        return Record(content, f"{self.where}: {key}", self.remake)

    def objects(self, key: str) -> "list[Record]":
        """The list of JSON objects at a key, which is not empty."""
        entries = self._checked(key, "a list of JSON objects", _is_list_of_objects)
        return [
            Record(entry, f"{self.where}: {key}[{index}]", self.remake)
            for index, entry in enumerate(entries)
        ]

    def error(self, what: str) -> VoxmillError:
        """An error that names the file before `what` and says what to do behind it."""
        return VoxmillError(f"{self.where}: {what}. {self.remake}")

    def _checked(self, key: str, expected: str, holds: Callable[[Any], bool]) -> Any:
        if key not in self.content:
            found = ", ".join(sorted(self.content)) or "none"
            raise self.error(f"expected the key {key!r}, found the keys {found}")
        if not holds(value := self.content[key]):
            raise self.error(f"{key}: expected {expected}, found {value!r:.80}")
        return value


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_triple(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(_is_number(v, int) for v in value)


def _are_lengths(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all((_is_number(v, int) or _is_number(v, float)) and v > 0 for v in value)
    )


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)
