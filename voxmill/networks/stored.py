"""A network as it lies in its file: settings and arrays; torch only when something asks for it."""

import functools

import numpy as np

from voxmill.networks import build


class StoredNetwork:
    """Weights without torch, whose import takes longer than many a tile.

    Parameters
    ----------
    kind : str
        A key of `voxmill.networks.NETWORKS`.
    settings
        The network's settings dataclass.
    arrays : dict of str to array
        Tensors by name, as in the weights file.
    """

    def __init__(self, kind: str, settings, arrays: dict[str, np.ndarray]):
        self.kind, self.settings, self.arrays = kind, settings, arrays

    @classmethod
    def of_msdnet(cls, network) -> "StoredNetwork":
        """An MS-D network, as it is where it is stored already."""
        if isinstance(network, cls):
            return network
        arrays = {k: v.detach().cpu().numpy() for k, v in network.state_dict().items()}
        return cls("msdnet", network.settings, arrays)

    @functools.cached_property
    def module(self):
        """The torch module with these weights, in eval mode on the CPU."""
        import torch

        network = build(self.kind, self.settings)
        network.load_state_dict({k: torch.from_numpy(v) for k, v in self.arrays.items()})
        return network.eval()


def module_of(network):
    """The torch module of a network, stored or not."""
    return network.module if isinstance(network, StoredNetwork) else network


def is_msdnet(network) -> bool:
    """Whether a network, stored or not, is an MS-D network."""
    if isinstance(network, StoredNetwork):
        return network.kind == "msdnet"
    from voxmill.networks.msdnet import MSDNet

    return isinstance(network, MSDNet)
