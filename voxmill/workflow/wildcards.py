"""Wildcards of the rules, as far as plain Python sees them."""

import re
from collections.abc import Callable, Iterable
from typing import Any, Protocol

# A section of the configuration, as it is written there.
Settings = dict[str, Any]
# Marks an input whose date reruns nothing; in a run it is Snakemake's `ancient`.
Mark = Callable[[str], str]


class Wildcards(Protocol):
    """Values of a job's wildcards as attributes: volume, network, tile, batch, slab, scan ..."""

    def __getattr__(self, name: str) -> str: ...


def pattern(names: Iterable[str]) -> str:
    r"""A regular expression of exactly these names; of nothing where there are none.

    >>> pattern(["a.b", "c"])
    'a\\.b|c'
    >>> pattern([])
    '(?!)'
    """
    return "|".join(re.escape(name) for name in names) or "(?!)"
