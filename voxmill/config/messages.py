"""Errors of settings in words: the key, what was expected, what was found and what to do."""

import datetime
import difflib
from collections.abc import Mapping
from typing import Any

import pydantic

from voxmill.config.base import Section, SettingError
from voxmill.config.schema import schema_of

_UNKNOWN = ("unexpected_keyword_argument", "unexpected_positional_argument", "extra_forbidden")
_LONGEST = 120
NAME = (
    "a name of at most 100 letters, digits, - and _ that begins with a letter or digit (it becomes "
    "part of file names)"
)


def problem_of(
    cls: type[Section], error: pydantic.ValidationError, content: Any
) -> tuple[str, str]:
    """The dotted key and the problem of the first error, an unknown key before all others.

    Parameters
    ----------
    cls : type
        The section that was checked.
    error : pydantic.ValidationError
    content : dict
        What was checked.
    """
    errors = error.errors(include_url=False)
    first = min(errors, key=lambda each: each["type"] not in _UNKNOWN)
    keys, schema = _place(schema_of(cls), first["loc"])
    value = _value(content, keys)
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, SettingError) and "[key]" not in first["loc"]:
        return _dotted(*keys, cause.key), cause.problem
    if first["type"] in (*_UNKNOWN, "invalid_key"):
        return _dotted(*keys), _unknown(first["loc"][len(keys)], schema)
    if "[key]" in first["loc"]:
        name = first["input"]
        problem = cause.problem if cause else f"expected {NAME}, found {_shown(name)}"
        return _dotted(*keys[:-1]), problem + _hint(name, {"type": "string"})
    if first["type"].startswith("missing") and len(keys) == len(first["loc"]):
        return _dotted(*keys), f"missing: expected {phrase(schema)}{_note(schema)}"
    problem = f"expected {phrase(schema)}, found {_shown(value)}"
    return _dotted(*keys), problem + (_hint(first["input"], schema) or _note(schema))


def phrase(schema: Mapping[str, Any]) -> str:
    """What a value must be, in words.

    >>> phrase({"type": "number", "exclusiveMinimum": 0, "maximum": 1})
    'a number > 0 and <= 1'
    >>> phrase({"type": "array", "items": {"type": "integer"}, "minItems": 3, "maxItems": 3})
    'three integers'
    """
    if "expected" in schema:
        return str(schema["expected"])
    if "anyOf" in schema:
        return ", or ".join(phrase(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    kind = schema.get("type", "")
    if kind == "array":
        return _phrase_of_list(schema)
    words = {"number": "a number", "integer": "an integer", "boolean": "true or false"}
    words |= {"string": "text", "object": "keys with values"}
    return words.get(kind, "a value") + _limits(schema)


def _limits(schema: Mapping[str, Any]) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f" from {schema['minimum']:g} to {schema['maximum']:g}"
    signs = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
    limits = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema]
    return " " + " and ".join(limits) if limits else ""


def _phrase_of_list(schema: Mapping[str, Any]) -> str:
    items = schema.get("items", {})
    plural = {"number": "numbers", "integer": "integers", "string": "names"}
    words = plural.get(items.get("type", ""), "values") + _limits(items)
    if "expected" in items:
        words = f"a list, each {items['expected']}"
    least, most = schema.get("minItems", 0), schema.get("maxItems")
    if least == most == 3:
        return f"three {words}"
    if most and least == most:
        return f"{words} ({most} of them)"
    if most:
        between = "or" if most == least + 1 else "to"
        return f"{words} ({least} {between} {most} of them)"
    return f"one or more {words}" if least else words


def _place(schema: dict[str, Any], loc: tuple[Any, ...]) -> tuple[list[Any], dict[str, Any]]:
    """The keys of the setting, or section, that a place in the settings belongs to; its schema."""
    keys: list[Any] = []
    for item in loc:
        if item in schema.get("properties", {}):
            schema = schema["properties"][item]
        elif isinstance(schema.get("additionalProperties"), dict):
            schema = schema["additionalProperties"]
        else:
            break
        keys.append(item)
    return keys, schema


def _value(content: Any, keys: list[Any]) -> Any:
    for key in keys:
        if isinstance(content, Mapping):
            content = content.get(key)
        else:
            content = getattr(content, str(key), None)
    return content


def _dotted(*keys: Any) -> str:
    return ".".join(str(key) for key in keys if key != "")


def _unknown(key: Any, schema: Mapping[str, Any]) -> str:
    known = sorted(schema.get("properties", {}))
    near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? The" if near else "the"
    return f"unknown key {_shown(key)}; {hint} known ones are {', '.join(known)}"


def _shown(value: Any) -> str:
    """A value as an error shows it, in one line."""
    text = repr(value)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."


def _note(schema: Mapping[str, Any]) -> str:
    text = str(schema.get("description", "")).rstrip(".")
    return f". {text}" if text else ""


def _hint(value: Any, schema: Mapping[str, Any]) -> str:
    """What to do where YAML reads something else than was meant; else nothing."""
    parts = [schema, *schema.get("anyOf", ())]
    kinds = {part.get("type") for part in parts}
    kinds |= {part["items"].get("type") for part in parts if "items" in part}
    if isinstance(value, str) and kinds & {"number", "integer"}:
        try:
            number = float(value.replace(",", ".").replace("_", ""))
        except ValueError:
            return ""
        if "," in value:
            return f". Write a decimal point: {number:g}"
        return f". YAML reads it as text: write {number:g} without quotes"
    scalar = bool | int | float | datetime.date
    if isinstance(value, scalar) and "string" in kinds and not kinds & {"number", "integer"}:
        return f". YAML reads it as a {_KINDS.get(type(value), 'number')}: put it in quotes"
    return ""


_KINDS = {bool: "truth value", datetime.date: "date", datetime.datetime: "date"}
