"""Write what follows from the definitions, or check it: `python -m voxmill.config --help`."""

import argparse
import sys
from pathlib import Path

from voxmill.config.page import page_text
from voxmill.config.schema import schema_text
from voxmill.config.settings import Settings
from voxmill.runtime.errors import VoxmillError

ROOT = Path(__file__).resolve().parents[2]
WRITTEN = {
    "schema": (ROOT / "schemas" / "config.schema.yaml", schema_text),
    "page": (ROOT / "docs" / "configuration.md", page_text),
}


def stale() -> list[Path]:
    """The written files that are not in step with the definitions."""
    return [
        path
        for path, text in WRITTEN.values()
        if not path.exists() or path.read_text(encoding="utf-8") != text(Settings)
    ]


def main(arguments: list[str] | None = None) -> None:
    """Write the schema or the page, or check both.

    Raises
    ------
    VoxmillError
        If a file is not in step.
    """
    parser = argparse.ArgumentParser(prog="python -m voxmill.config", description=__doc__)
    parser.add_argument("task", choices=[*WRITTEN, "check"])
    task = parser.parse_args(arguments).task
    if task != "check":
        path, text = WRITTEN[task]
        path.write_text(text(Settings), encoding="utf-8")
    elif paths := stale():
        raise VoxmillError(
            f"{paths[0]}: expected what the definitions in voxmill/config say, found something "
            "else; run python -m voxmill.config schema and python -m voxmill.config page."
        )


if __name__ == "__main__":
    try:
        main()
    except VoxmillError as error:
        sys.exit(str(error))
