"""Networks: one file each, one registry line each.

`NETWORKS` (torch-free) says which names exist; `build` makes the module.
"""

from voxmill.config.networks import NETWORK_SETTINGS, check_settings

__all__ = ["NETWORKS", "build", "check_settings"]

# name: (settings, module that defines the network, its class there)
NETWORKS = {
    "msdnet": (NETWORK_SETTINGS["msdnet"], "voxmill.networks.msdnet", "MSDNet"),
    # Not built but loaded whole, by `voxmill.networks.models.load`.
    "exported": (NETWORK_SETTINGS["exported"], "voxmill.networks.exported", "Exported"),
}


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
