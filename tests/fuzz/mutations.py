"""Changes of whole files: bytes, and the values of JSON, as hypothesis draws them."""

import copy
import json
import struct

from hypothesis import strategies as st

DEEP = "<deep>"
"""Stands for lists in lists, deeper than any parser follows."""
LONG = "x" * 5000
VALUES = (
    None, True, False, 0, 1, -1, 8, 0.5, -0.5, 1e9, -1e300, 2**31, 2**63, 2**70, 10**400,
    float("nan"), float("inf"), float("-inf"), "", "0", "nan", "a\0b", "../..", LONG, "µ\ud7ff",
    DEEP, [], [0], [None] * 3, [-1, -1, -1], [1e9] * 3, [2**40] * 3, [[1], [2]], {}, {"a": 1},
)  # fmt: skip
WORDS = (0, 1, 2, 8, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
FLOATS = (float("nan"), float("inf"), float("-inf"), -1.0, 0.0, 1e38, -1e-38)

_UNIT = st.floats(0, 1, exclude_max=True)


def edits():
    """One to three changes of bytes: (kind, where from 0 to 1, near a header or not, choice)."""
    kinds = st.sampled_from(["flip", "word", "word", "word", "float", "cut", "insert", "repeat"])
    return st.lists(
        st.tuples(kinds, _UNIT, st.booleans(), st.integers(0, 10_000)), min_size=1, max_size=3
    )


def edited(content, hot, changes):
    """The bytes after `edits`; `hot` are positions in headers, which are drawn more often."""
    data = bytearray(content)
    for kind, where, near, choice in changes:
        if not data:
            break
        at = hot[int(where * len(hot))] if hot and near else int(where * len(data))
        at = min(at, len(data) - 1)
        order = "<>"[choice % 2]
        if kind == "flip":
            data[at] ^= 1 << choice % 8
        elif kind == "word":
            form = "BHIQ"[choice % 4]
            word = WORDS[choice % len(WORDS)] % 2 ** (8 * struct.calcsize(form))
            packed = struct.pack(order + form, word)
            data[at : at + len(packed)] = packed
        elif kind == "float":
            packed = struct.pack(order + "fd"[choice % 2], FLOATS[choice % len(FLOATS)])
            data[at : at + len(packed)] = packed
        elif kind == "cut":
            del data[at:]
        elif kind == "insert":
            data[at:at] = bytes([choice % 256]) * (1 + choice % 700)
        else:
            data[at:at] = data[at : at + 1 + choice % 300]
    return bytes(data)


def value_edits():
    """One to three changes of a nested value: (where, what)."""
    what = st.sampled_from(["delete", "add", "number", *range(len(VALUES))])
    return st.lists(st.tuples(_UNIT, what), min_size=1, max_size=3)


def changed(content, changes):
    """A nested value after `value_edits`."""
    content = copy.deepcopy(content)
    for where, what in changes:
        places = list(_places(content))
        if not places:
            return VALUES[what] if isinstance(what, int) else content
        parent, key = places[int(where * len(places))]
        if what == "delete":
            del parent[key]
        elif what == "add" and isinstance(parent, dict):
            parent[f"{key}2"] = parent[key]
        elif what == "add":
            parent.append(parent[key])
        elif what == "number":
            old = parent[key]
            parent[key] = -old if isinstance(old, int | float) else str(old)
        else:
            parent[key] = copy.deepcopy(VALUES[what])
    return content


def _places(content):
    """All places of a nested value: what they are in, and their key there."""
    items = {dict: lambda c: list(c.items()), list: lambda c: list(enumerate(c))}
    for key, value in items.get(type(content), lambda c: [])(content):
        yield content, key
        yield from _places(value)


def json_text(content, depth=100_000):
    """A value as JSON, with `DEEP` as deep as it says."""
    return json.dumps(content).replace(f'"{DEEP}"', "[" * depth + "]" * depth)
