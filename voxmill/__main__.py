"""Command line: `python -m voxmill COMMAND`; see `voxmill.commands`."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from voxmill.commands import COMMANDS
from voxmill.runtime.errors import VoxmillError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the command line by default.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    if not given or given[0] not in (*COMMANDS, "-h", "--help"):
        print(f"usage: python -m voxmill {{{','.join(COMMANDS)}}} ...", file=sys.stderr)
        return 2
    parser = argparse.ArgumentParser(prog="python -m voxmill")
    parts = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    # Of one command that alone is loaded; the help names all.
    for name in [given[0]] if given[0] in COMMANDS else COMMANDS:
        module = importlib.import_module(f"voxmill.commands.{name}")
        about = (module.__doc__ or "").splitlines()[0]
        part = parts.add_parser(name, help=about, description=module.__doc__)
        part.formatter_class = argparse.RawDescriptionHelpFormatter
        module.add_arguments(part)
        part.set_defaults(run=module.run)
    options = parser.parse_args(given)
    try:
        return int(options.run(options))
    except VoxmillError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
