"""Cut a box out of a volume of a configuration, to click its cells in a viewer.

Prints what to write into the training's section for the clicks: their places in the crop count from
its first voxel, and the training counts from the whole volume's.
"""

import argparse
from pathlib import Path

from voxmill.config.base import SettingError
from voxmill.config.files import read_configuration
from voxmill.geometry import Box
from voxmill.runtime.errors import VoxmillError
from voxmill.volumes import read_header, source_choices
from voxmill.volumes.crop_volume import crop_volume


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("configuration", type=Path, help="a YAML file, as for --configfile")
    parser.add_argument("volume", help="a name under `volumes`, or under a training's volumes")
    parser.add_argument("box", help='"z0:z1, y0:y1, x0:x1": absolute voxels, half-open')
    parser.add_argument("output", type=Path, help="the crop, .ome.tif")


def run(options: argparse.Namespace) -> int:
    """Write the crop and print the section of its clicks; returns 0.

    Raises
    ------
    VoxmillError
        If the configuration, the name or the box is wrong, or the volume can't be read.
    """
    settings = read_configuration(options.configuration)
    sections = {
        name: section
        for part in (settings, *(settings.get("training") or {}).values())
        for name, section in ((part or {}).get("volumes") or {}).items()
        if "path" in (section or {})
    }
    if options.volume not in sections:
        raise VoxmillError(
            f"{options.configuration}: expected a volume with a path, one of "
            f"{', '.join(sorted(sections)) or 'none'}, found {options.volume!r}."
        )
    section = sections[options.volume]
    header = read_header(
        section["path"], voxel_size_um=section.get("voxel_size_um"), **source_choices(section)
    )
    try:
        box = Box.parse(options.box, header.shape)
    except VoxmillError as error:
        raise SettingError("box", str(error).removeprefix("region: ")) from None
    crop_volume(header, box, options.output)
    start, stop = box.to_lists()
    bounds = ", ".join(f"{a}:{b}" for a, b in zip(start, stop, strict=True))
    print(f"{options.output}: {' x '.join(map(str, box.shape))} voxels of {section['path']}")
    print("For the clicks in it, in the training's section of the volume:")
    print(f"  truth: {{path: clicks.csv, program: napari, offset_vox: {start}}}")
    print(f'  region: "{bounds}"')
    return 0
