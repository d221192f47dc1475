"""Remove what is broken, so that the next run makes just that.

The exit status is 0 where nothing is broken any more, 1 where a file could not be removed.
"""

import argparse
import shutil
import sys
from pathlib import Path

from voxmill.checking.check import check_run, report
from voxmill.checking.configured import folders_and_targets
from voxmill.commands.check import add_shared_arguments
from voxmill.runtime.files import remove_leftovers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_shared_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="remove nothing")


def run(options: argparse.Namespace) -> int:
    """Remove the broken files of the run in this folder, and what vouches for them.

    Raises
    ------
    VoxmillError
        If there are no results, or the configuration is wrong.
    """
    folders, targets = folders_and_targets(options.configuration)
    found = check_run(folders, targets, threads=options.threads)
    print(report(found))
    status = 0
    if not options.dry_run:
        for path in (path for folder in folders for path in remove_leftovers(folder)):
            print(f"removed  {path}")
    for path in [path for item in found.broken for path in item.remove]:
        try:
            if not options.dry_run:
                _remove(path)
            print(f"{'would remove' if options.dry_run else 'removed'}  {path}")
        except OSError as error:
            print(f"Error: {path}: it can't be removed ({error.strerror})", file=sys.stderr)
            status = 1
    return status


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
