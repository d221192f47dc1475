"""Networks: one file each, one registry line each.

`SETTINGS` (torch-free) says which names exist and checks their settings; `build` makes the module.
"""

from voxmill.networks.settings import ExportedSettings, MSDNetSettings
from voxmill.runtime.errors import VoxmillError

# name: (settings dataclass, module that defines the network, its class there)
NETWORKS = {
    "msdnet": (MSDNetSettings, "voxmill.networks.msdnet", "MSDNet"),
    # Not built but loaded whole, by `voxmill.networks.models.load`.
    "exported": (ExportedSettings, "voxmill.networks.exported", "Exported"),
}


def check_settings(network: str, settings: dict):
    """Settings of a network as its frozen dataclass.

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


def build(network: str, settings, seed: int = 0):
    """A network with seeded initial weights (a torch module on the CPU).

    Parameters
    ----------
    network : str
        A key of `NETWORKS`.
    settings : the network's settings dataclass
    seed : int
    """
    import importlib

    import torch

    _, module, name = NETWORKS[network]
    generator = torch.Generator().manual_seed(seed)
    return getattr(importlib.import_module(module), name)(settings, generator)
