"""`python -m voxmill repair`: remove what is broken, so that the next run makes just that."""

import sys
from collections.abc import Sequence

from voxmill.checking.check import check_run, parse, report
from voxmill.checking.configured import folders_and_targets
from voxmill.runtime.errors import VoxmillError


def main(argv: Sequence[str]) -> int:
    """Remove the broken files of the run in this folder, and what vouches for them.

    Returns
    -------
    int
        0 where nothing is broken any more, 1 where a file could not be removed.
    """
    parser = parse(argv, "repair", "Remove what is broken; the next run makes it anew.")
    parser.add_argument("--dry-run", action="store_true", help="remove nothing")
    chosen = parser.parse_args(argv)
    try:
        found = check_run(*folders_and_targets(chosen.configuration), threads=chosen.threads)
    except VoxmillError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(report(found))
    status = 0
    for path in [path for item in found.broken for path in item.remove]:
        try:
            if not chosen.dry_run:
                path.unlink(missing_ok=True)
            print(f"{'would remove' if chosen.dry_run else 'removed'}  {path}")
        except OSError as error:
            print(f"Error: {path}: it can't be removed ({error.strerror})", file=sys.stderr)
            status = 1
    return status
