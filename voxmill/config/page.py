"""The page of the docs that lists every key of a configuration."""

import re
from collections.abc import Iterator
from typing import Any

from voxmill.config.base import Section
from voxmill.config.messages import phrase
from voxmill.config.schema import schema_of

HEAD = """\
# Configuration

<!-- Written by `python -m voxmill.config page` from the definitions in voxmill/config. -->

A configuration says what to compute; memory, time, GPUs and threads belong to the rules and to
profiles. `config.yaml` runs the demo; for your own data copy it, edit the copy and run
`snakemake --cores all --configfile my.yaml`. All sections and keys may be left out unless the table
says *needed*; an unknown key is refused. `NAME` stands for a name of your choice: up to 100
letters, digits, `-` and `_`. Names end with the unit: `_um` micrometres, `_mm` millimetres, `_vox`
voxels. Axes are ordered z, y, x. Numbers with an exponent need a point in YAML (`2.0e-3`).

To have an editor check a file as you type, put this line at its top:

```yaml
# yaml-language-server: $schema=schemas/config.schema.yaml
```
"""


def page_text(cls: type[Section]) -> str:
    """The page of a configuration's class, for docs/configuration.md."""
    parts = [HEAD]
    for key, schema in schema_of(cls)["properties"].items():
        for title, section in _sections(key, schema):
            # The kinds of networks are few; the heading's depth follows the nesting.
            parts.append(_section_text(title, section))
    return "\n".join(parts)


def _sections(key: str, schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A section and those within it, by their dotted key."""
    if isinstance(named := schema.get("additionalProperties"), dict):
        description = schema.get("description", named.get("description"))
        yield from _sections(f"{key}.NAME", named | {"description": description})
    elif "properties" in schema:
        yield key, schema
        for name, part in schema["properties"].items():
            yield from _sections(f"{key}.{name}", part)


def _section_text(key: str, schema: dict[str, Any]) -> str:
    needed = schema.get("required", ())
    rows = [
        f"| `{name}` | {_kind(part)} | {_default(part, name in needed)} "
        f"| {_escaped(part.get('description', ''))} |"
        for name, part in schema["properties"].items()
    ]
    level = "##" if "." not in key.removesuffix(".NAME") else "###"
    head = ["| key | value | default | meaning |", "|---|---|---|---|"]
    lines = [f"{level} `{key}`", "", schema.get("description", ""), "", *head, *rows, ""]
    return "\n".join(lines)


def _is_section(schema: dict[str, Any]) -> bool:
    return "properties" in schema or isinstance(schema.get("additionalProperties"), dict)


def _kind(schema: dict[str, Any]) -> str:
    return "a section, see below" if _is_section(schema) else _escaped(phrase(schema))


def _default(schema: dict[str, Any], needed: bool) -> str:
    if needed:
        return "*needed*"
    if "default" not in schema or _is_section(schema):
        return ""
    value = schema["default"]
    text = {True: "true", False: "false"}.get(value) if isinstance(value, bool) else str(value)
    return f"`{text}`"


def _escaped(text: str) -> str:
    """Text for a cell: signs of Markdown stand for themselves; in code only | needs that."""
    parts = text.split("`")
    for at, part in enumerate(parts):
        parts[at] = re.sub(r"\|" if at % 2 else r"[|*<>]", r"\\\g<0>", part)
    return "`".join(parts)
