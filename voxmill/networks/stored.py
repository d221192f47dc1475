"""A network as its file holds it: settings and arrays. Importing this module imports no torch."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from voxmill.networks import NetworkSettings, build

if TYPE_CHECKING:
    from torch import nn

    from voxmill.networks.msdnet import MSDNet


class Network(Protocol):
    """What the engine evaluates: a `StoredNetwork`, or a torch module with `settings`."""

    @property
    def settings(self) -> Any:
        """The network's settings dataclass, one of those in `voxmill.networks.NETWORKS`."""


class StoredNetwork:
    """Weights as arrays. Importing torch would take longer than predicting a small tile.

    Parameters
    ----------
    kind : str
        A key of `voxmill.networks.NETWORKS`.
    settings : MSDNetSettings or ExportedSettings
        The network's settings.
    arrays : dict of str to array
        Tensors by name, as in the weights file.
    """

    def __init__(self, kind: str, settings: NetworkSettings, arrays: dict[str, np.ndarray]) -> None:
        self.kind, self.arrays = kind, arrays
        self.settings: Any = settings

    @classmethod
    def of_msdnet(cls, network: StoredNetwork | MSDNet) -> StoredNetwork:
        """The stored form of an MS-D network; a stored network itself."""
        if isinstance(network, StoredNetwork):
            return network
        arrays = {k: v.detach().cpu().numpy() for k, v in network.state_dict().items()}
        return cls("msdnet", network.settings, arrays)

    @functools.cached_property
    def module(self) -> nn.Module:
        """The torch module with these weights, in eval mode on the CPU."""
        import torch

        network = build(self.kind, self.settings)
        network.load_state_dict({k: torch.from_numpy(v) for k, v in self.arrays.items()})
        return network.eval()


def module_of(network: Network) -> nn.Module:
    """The torch module of a network, stored or not."""
    return network.module if isinstance(network, StoredNetwork) else cast("nn.Module", network)


def is_msdnet(network: Network) -> bool:
    """Whether a network, stored or not, is an MS-D network."""
    if isinstance(network, StoredNetwork):
        return network.kind == "msdnet"
    from voxmill.networks.msdnet import MSDNet

    return isinstance(network, MSDNet)
