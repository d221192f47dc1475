"""`python -m voxmill COMMAND ...`."""

import importlib
import sys

COMMANDS = {
    "check": "voxmill.checking.check",
    "repair": "voxmill.checking.repair",
}
"""The module of each command; its `main` takes the other arguments and returns the status."""


def main(argv: list[str]) -> int:
    """Run a command; returns its exit status."""
    if not argv or argv[0] not in COMMANDS:
        print(f"usage: python -m voxmill {{{','.join(COMMANDS)}}} ...", file=sys.stderr)
        return 2
    return int(importlib.import_module(COMMANDS[argv[0]]).main(argv[1:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
