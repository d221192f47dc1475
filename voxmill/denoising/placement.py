"""Which unit of the network runs on which device."""

from collections.abc import Sequence

import torch

from voxmill.config.denoising import DenoiseSettings
from voxmill.networks.skip3d import Skip3D
from voxmill.runtime.errors import VoxmillError


def unit_names(settings: DenoiseSettings) -> list[str]:
    """Names of the network's units in the order in which they run; allocates no memory."""
    with torch.device("meta"):
        return list(Skip3D(settings.network).units)


def place_units(
    units: Sequence[str], devices: Sequence[torch.device], cut: str = "decoder"
) -> dict[str, torch.device]:
    """Choose the device of every unit.

    Parameters
    ----------
    units : sequence of str
        Names of the network's units in the order in which they run.
    devices : sequence of torch.device
        One or two.
    cut : str
        The first unit on the second device; `decoder` is the first unit of the decoder.

    Raises
    ------
    VoxmillError
        If there is no such unit, or it is the first of all.
    """
    if len(devices) == 1:
        return dict.fromkeys(units, devices[0])
    name = next(unit for unit in units if unit.startswith("merge")) if cut == "decoder" else cut
    if name not in list(units)[1:]:
        raise VoxmillError(
            f"denoise setting cut: expected auto, decoder or one of {list(units)[1:]}, "
            f"found {cut!r}"
        )
    first = list(units).index(name)
    return {unit: devices[index >= first] for index, unit in enumerate(units)}
