"""Command line: `python -m voxmill.slurm array | resume | table`."""

import argparse
import sys
from pathlib import Path

from voxmill.runtime.errors import VoxmillError
from voxmill.slurm import array, resume, table


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    options, rest = _parser().parse_known_args(_split(arguments or sys.argv[1:])[0])
    if rest:
        _parser().error(f"unknown: {' '.join(rest)} (arguments for Snakemake follow `--`)")
    options.snakemake = _split(arguments or sys.argv[1:])[1]
    try:
        return options.function(options)
    except VoxmillError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; nothing was changed", file=sys.stderr)
        return 130


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Split arguments at `--` into those of this command and those of Snakemake."""
    if "--" not in arguments:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m voxmill.slurm",
        description="voxmill on a SLURM cluster; docs/cluster.md explains each command.",
        epilog="What follows `--` is passed to Snakemake, such as `-- --configfile mine.yaml`.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_array(commands)
    _add_resume(commands)
    command = commands.add_parser("table", help="seconds, waits, GPUs and memory of each job")
    _common_options(command)
    command.add_argument("--csv", type=Path, help="also write the table to this file")
    command.set_defaults(function=_table)
    # Users do not run this command: the last job of `array` does.
    command = commands.add_parser("continue")
    command.add_argument("folder", type=Path)
    command.set_defaults(function=lambda options: array.go_on(options.folder))
    return parser


def _add_array(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("array", help="predict as job arrays, one task a tile")
    _common_options(command)
    command.add_argument("--limit", type=_count, default=0, help="tasks at the same time (0: all)")
    command.add_argument("--retries", type=_count, default=2, help="further tries of failed tiles")
    command.add_argument("--chunk", type=_count, default=0, help="most tasks in one array")
    command.add_argument(
        "--stage-cpus", type=_count, default=4, help="cores of the jobs before and after"
    )
    command.add_argument("--stage-minutes", type=_count, default=240, help="their walltime")
    command.add_argument("targets", nargs="*", help="what to make at the end (default: all)")
    command.set_defaults(function=_array)


def _add_resume(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser("resume", help="continue a run whose scheduler was killed")
    _common_options(command)
    which = command.add_mutually_exclusive_group()
    which.add_argument("--cancel", action="store_true", help="cancel jobs that run or wait")
    which.add_argument(
        "--cancel-pending",
        action="store_true",
        help="cancel jobs that wait; let the others end",
    )
    command.add_argument(
        "--poll", type=float, default=15, help="seconds between checks of the queue"
    )
    command.add_argument("--no-run", action="store_true", help="clean up, but start no new run")
    command.add_argument("targets", nargs="*", help="what to make (default: all)")
    command.set_defaults(function=_resume)


def _common_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--profile",
        help='Snakemake profile; "" for none (default: slurm where squeue is found, else none)',
    )
    command.add_argument("--directory", type=Path, default=Path(), help="working directory")


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, found {text!r}")
    return int(text)


def _array(options: argparse.Namespace) -> int:
    array.submit(
        array.ArrayRun(
            directory=str(options.directory.resolve()),
            arguments=options.snakemake,
            targets=options.targets,
            profile=options.profile or "slurm",
            limit=options.limit,
            chunk=options.chunk,
            retries=options.retries,
            stage_cpus=max(options.stage_cpus, 1),
            stage_minutes=options.stage_minutes,
        )
    )
    return 0


def _resume(options: argparse.Namespace) -> int:
    return resume.resume(
        resume.Resume(
            directory=options.directory.resolve(),
            arguments=options.snakemake,
            targets=options.targets,
            profile=resume.usual_profile() if options.profile is None else options.profile,
            cancel="all" if options.cancel else "pending" if options.cancel_pending else "none",
            poll_s=options.poll,
            run=not options.no_run,
        )
    )


def _table(options: argparse.Namespace) -> int:
    rows = table.read(options.directory)
    print(table.formatted(rows))
    if options.csv:
        table.write_csv(options.csv, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
