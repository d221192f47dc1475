"""Settings of a command line: Snakemake hands nested values of `--config` on as text."""

from collections.abc import Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter

from voxmill.config.base import Checked, Section
from voxmill.config.settings import Settings

_WORDS = {"true": True, "false": False, "null": None, "none": None, "~": None, "": None}


def typed(given: Mapping[str, Any], kind: Any = Settings) -> dict[str, Any]:
    """Values of `--config` by the types of the settings.

    Text stays where a setting takes that text; where it does not, it is read as a number, true,
    false or null. Only what a command line gave is read so: in a file, text in quotes is text.

    Parameters
    ----------
    given : dict
        As Snakemake read it, such as `{"evaluation": {"max_distance_um": "5"}}`.
    kind : type
        What the settings are.

    Examples
    --------
    >>> typed({"evaluation": {"max_distance_um": "5"}, "cells": {"method": "maxima"}})
    {'evaluation': {'max_distance_um': 5}, 'cells': {'method': 'maxima'}}
    """
    return {key: _typed(value, _inner(kind, key)) for key, value in given.items()}


def overlaid(content: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A nested dict with the values of another one over its own.

    >>> overlaid({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}})
    {'a': {'b': 1, 'c': 3}}
    """
    result = dict(content)
    for key, value in over.items():
        below = result.get(key)
        nested = isinstance(value, Mapping) and isinstance(below, Mapping)
        result[key] = overlaid(below, value) if nested else value  # type: ignore[arg-type]
    return result


def _typed(value: Any, kind: Any) -> Any:
    if isinstance(value, Mapping):
        return typed(value, kind)
    if not isinstance(value, str | list):
        return value
    try:
        TypeAdapter(kind).validate_python(value)
    except ValueError:
        return _read(value)
    return value


def _read(value: Any) -> Any:
    """Text, or a list of it, as YAML would read it without quotes; what is no value stays text."""
    if isinstance(value, list):
        return [_read(item) for item in value]
    if not isinstance(value, str):
        return value
    if value.lower() in _WORDS:
        return _WORDS[value.lower()]
    for number in (int, float):
        try:
            return number(value)
        except ValueError:
            continue
    return value


def _inner(kind: Any, key: str) -> Any:
    """What a key of a setting is: a section's field, or a value of a dict; Any where none is."""
    if isinstance(kind, type) and issubclass(kind, Section):
        return get_type_hints(kind, include_extras=True).get(key, Any)
    parts = get_args(kind)
    if get_origin(kind) is dict:
        return parts[1]
    if get_origin(kind) is Annotated:
        parts = tuple(part.cls if isinstance(part, Checked) else part for part in parts)
        checked = [part for part in parts if isinstance(part, type) and issubclass(part, Section)]
        return _inner((checked or parts)[0], key)
    inner = [found for part in parts if (found := _inner(part, key)) is not Any]
    return inner[0] if inner else Any
