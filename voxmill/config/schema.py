"""The JSON schema of the settings, from their definitions and the docstrings below them."""

import ast
import functools
import inspect
import textwrap
from typing import Any, cast

import pydantic
import yaml

from voxmill.config.base import SECTIONS, Section

HEADER = (
    "# Written by `python -m voxmill.config schema` from the definitions in voxmill/config.\n"
    "# Editors check a configuration with it as it is typed; voxmill checks by the definitions.\n"
)


@functools.cache
def descriptions(cls: type) -> dict[str, str]:
    """What the docstrings below a class's settings, and those of its bases, say of each."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if issubclass(base, Section) and base is not Section:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
            assert isinstance(tree, ast.ClassDef)
            for line, below in zip(tree.body, tree.body[1:], strict=False):
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                    text = getattr(getattr(below, "value", None), "value", None)
                    if isinstance(below, ast.Expr) and isinstance(text, str):
                        found[line.target.id] = " ".join(text.split())
    return found


def schema_of(cls: type[Section]) -> dict[str, Any]:
    """JSON schema of a section, all of its parts in place.

    Beside the words of JSON schema it has `expected`, words for an error message, where a pattern
    says too little.
    """
    return _schema_of(cast(Any, cls))


@functools.cache
def _schema_of(cls: type) -> dict[str, Any]:
    schema: dict[str, Any] = pydantic.TypeAdapter(cls).json_schema()
    return _simplified(schema | {"title": cls.__name__}, schema.get("$defs", {}))


def _simplified(schema: dict[str, Any], parts: dict[str, Any]) -> dict[str, Any]:
    if reference := schema.get("$ref"):
        target = parts[reference.rpartition("/")[2]]
        schema = target | {key: value for key, value in schema.items() if key != "$ref"}
    schema = {key: value for key, value in schema.items() if key != "$defs"}
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        del schema["anyOf"]
        # The title tells the class, not the key.
        title = {key: choices[0][key] for key in ("title",) if key in choices[0]}
        schema = choices[0] | schema | title
        return _simplified(schema, parts)
    cls = SECTIONS.get(schema.pop("title", ""))
    if schema.get("default", 0) is None:
        del schema["default"]
    for pattern, part in schema.pop("patternProperties", {}).items():
        # Names of the user's choice: one way to say it in place of two.
        schema["propertyNames"] = {"type": "string", "pattern": pattern, "maxLength": 100}
        schema["additionalProperties"] = part
    for key in ("items", "propertyNames", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            schema[key] = _simplified(schema[key], parts)
    if choices:
        schema["anyOf"] = [_simplified(choice, parts) for choice in choices]
    if items := schema.pop("prefixItems", None):
        # All of a triple are alike.
        schema["items"] = _simplified(items[0], parts)
    if properties := schema.get("properties"):
        texts = descriptions(cls) if cls else {}
        schema["properties"] = {
            name: _described(_simplified(part, parts), texts.get(name))
            for name, part in properties.items()
        }
    if "description" in schema:
        schema["description"] = " ".join(schema["description"].split())
    return schema


def _described(schema: dict[str, Any], text: str | None) -> dict[str, Any]:
    return {**schema, "description": text} if text else schema


_STYLE: dict[str, Any] = {
    "sort_keys": False, "width": 100, "allow_unicode": True, "default_flow_style": None
}  # fmt: skip
_ORDER = ("$schema", "description", "type", "enum", "const", "default")


def schema_text(cls: type[Section]) -> str:
    """The schema of a section as a YAML file."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema_of(cls)
    return HEADER + str(yaml.safe_dump(_ordered(schema), **_STYLE))


def _ordered(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_ordered(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    known = [key for key in _ORDER if key in schema]
    rest = [key for key in schema if key not in _ORDER and key != "expected"]
    return {key: _ordered(schema[key]) for key in (*known, *rest)}
