"""Show what a run will take: tiles, jobs, bytes, hours.

Reads the configuration and the headers of the volumes, no voxel. Hours are those of the last job of
the same kind on this machine; they are unknown before there was one.
"""

import argparse
import shutil
from pathlib import Path

from voxmill.config.files import read_configuration
from voxmill.tiles.forecast import Step, forecast, needed_bytes, report, told
from voxmill.workflow import configuration
from voxmill.workflow.cutting import ASSUMED_HALO_VOX, wanted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("configuration", type=Path, help="a YAML file, as for --configfile")


def run(options: argparse.Namespace) -> int:
    """Print a table for each volume; returns 0.

    Raises
    ------
    VoxmillError
        If the configuration or a volume's header is wrong.
    """
    path: Path = options.configuration
    config = configuration.load(read_configuration(path), str(path))
    every: list[Step] = []
    for name, volume in config.volumes.items():
        halo = config.halo_vox(name)
        steps = forecast(
            config.grid(name), halo or ASSUMED_HALO_VOX, volume.itemsize, wanted(config, name)
        )
        every += steps
        print(report(f"volume {name}", config.grid(name), halo, steps))
        print()
    free = shutil.disk_usage(Path.cwd()).free
    print(f"{told(every, free, Path.cwd())}.")
    if needed_bytes(every) > free:
        print("The disk has too little space: see tiles.keep, or run in another folder.")
    return 0
