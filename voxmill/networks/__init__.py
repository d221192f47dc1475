"""The networks' architectures (a file and a line in `NETWORKS` for each) and the model cards.

This module and the settings import no torch: `NETWORKS` says which networks exist, `check_settings`
checks their settings, and `build` makes a torch module. `models` reads and writes trained models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from voxmill.networks.settings import ExportedSettings, MSDNetSettings
from voxmill.runtime.errors import VoxmillError

if TYPE_CHECKING:
    from torch import nn

NetworkSettings = MSDNetSettings | ExportedSettings

# name: (settings dataclass, module that defines the network, its class there)
NETWORKS: dict[str, tuple[type[NetworkSettings], str, str]] = {
    "msdnet": (MSDNetSettings, "voxmill.networks.msdnet", "MSDNet"),
    # `voxmill.networks.models.load` loads it whole; `build` does not apply.
    "exported": (ExportedSettings, "voxmill.networks.exported", "Exported"),
}


def check_settings(network: str, settings: dict[str, Any]) -> NetworkSettings:
    """Settings of a network as its frozen dataclass.

    Parameters
    ----------
    network : str
        A key of `NETWORKS`.
    settings : dict
        Those that differ from the defaults.

    Raises
    ------
    VoxmillError
        If the network is not registered, or a setting is unknown or out of range.
    """
    if network not in NETWORKS:
        raise VoxmillError(f"network: expected one of {sorted(NETWORKS)}, found {network!r}")
    kind = NETWORKS[network][0]
    unknown = sorted(set(settings) - set(kind.__dataclass_fields__))
    if unknown:
        raise VoxmillError(
            f"{network} setting {unknown[0]}: unknown; expected some of "
            f"{sorted(kind.__dataclass_fields__)}"
        )
    try:
        return kind(**settings)
    except TypeError as error:
        raise VoxmillError(f"{network} settings: {error}") from None


def build(network: str, settings: NetworkSettings, seed: int = 0) -> nn.Module:
    """A network with seeded initial weights (a torch module on the CPU).

    Parameters
    ----------
    network : str
        A key of `NETWORKS`.
    settings : MSDNetSettings
        The network's settings.
    seed : int
        Of the initial weights.
    """
    import importlib

    import torch

    _, module, name = NETWORKS[network]
    generator = torch.Generator().manual_seed(seed)
    made: nn.Module = getattr(importlib.import_module(module), name)(settings, generator)
    return made
