"""Verify every file of a run.

The exit status is 0 where every file is whole and none is missing, else 1.
"""

import argparse

from voxmill.checking.check import check_run, report
from voxmill.checking.configured import folders_and_targets


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_shared_arguments(parser)
    parser.add_argument("--all", action="store_true", help="name the files without a checksum too")


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that `check` and `repair` share."""
    parser.add_argument(
        "configuration", nargs="?", help="check its volumes and scans alone, and what is missing"
    )
    parser.add_argument("--threads", type=int, default=0, help="files read at once")


def run(options: argparse.Namespace) -> int:
    """Check the run in this folder; returns 1 where a file is broken or missing.

    Raises
    ------
    VoxmillError
        If there are no results, or the configuration is wrong.
    """
    found = check_run(*folders_and_targets(options.configuration), threads=options.threads)
    for path in found.unchecked if options.all else ():
        print(f"no checksum  {path}")
    print(report(found))
    if found.broken:
        print("`python -m voxmill repair` removes what is broken; then run Snakemake again.")
    return int(bool(found.broken or found.missing))
