"""Check nested settings against a JSON schema, and fill in its defaults."""

import re

import jsonschema

from voxmill.runtime.errors import VoxmillError


def check(content: dict, schema: dict, source: str) -> dict:
    """A copy of `content` with the schema's defaults, checked against the schema.

    Raises
    ------
    VoxmillError
        Names the first wrong key (the deepest), what was expected and what was found.
    """
    filled = _with_defaults(content, schema, schema)
    errors = jsonschema.Draft202012Validator(schema).iter_errors(filled)
    error = jsonschema.exceptions.best_match(errors)
    if error is None:
        return filled
    key = ".".join(map(str, error.absolute_path)) or "(top level)"
    if error.validator == "additionalProperties":
        extra = re.findall(r"'([^']+)'", error.message)[0]
        known = ", ".join(sorted(error.schema.get("properties", {})))
        raise VoxmillError(f"{source}: {key}: unknown key {extra!r}; the known ones are {known}.")
    note = error.schema.get("description", "")
    raise VoxmillError(f"{source}: {key}: {error.message}. {note}".rstrip())


def _with_defaults(value, schema: dict, root: dict):
    while "$ref" in schema:
        target = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        schema = target | {k: v for k, v in schema.items() if k != "$ref"}
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties", {})
    rest = schema.get("additionalProperties")
    filled = {}
    for key, item in value.items():
        part = properties.get(key, rest if isinstance(rest, dict) else {})
        # An empty section (`tiles:` with nothing under it) means its defaults.
        if item is None and part.get("type") == "object":
            item = {}
        filled[key] = _with_defaults(item, part, root)
    for key, part in properties.items():
        if key not in filled and "default" in part:
            filled[key] = _with_defaults(part["default"], part, root)
    return filled
