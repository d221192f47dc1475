"""The networks' architectures (a file and a line in `NETWORKS` for each) and the model cards.

This module and the settings import no torch: `NETWORKS` says which networks exist, and `build`
makes a torch module. `models` reads and writes trained models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from voxmill.config.networks import (
    NETWORK_SETTINGS,
    ExportedSettings,
    MSDNetSettings,
    check_settings,
)

if TYPE_CHECKING:
    from torch import nn

__all__ = ["NETWORKS", "NetworkSettings", "build", "check_settings"]

NetworkSettings = MSDNetSettings | ExportedSettings

# name: (settings, module that defines the network, its class there)
NETWORKS: dict[str, tuple[type[NetworkSettings], str, str]] = {
    "msdnet": (NETWORK_SETTINGS["msdnet"], "voxmill.networks.msdnet", "MSDNet"),
    # `voxmill.networks.models.load` loads it whole; `build` does not apply.
    "exported": (NETWORK_SETTINGS["exported"], "voxmill.networks.exported", "Exported"),
}


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
