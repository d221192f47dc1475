"""What a backend is: a name, a module with three functions, and what it can compute.

A backend maps a normalised volume to probabilities. Importing this module does not import torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from voxmill.networks import NetworkSettings
from voxmill.networks.stored import Network, module_of

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Backend:
    """One implementation of the networks' evaluation.

    Parameters
    ----------
    name : str
        What the configuration calls it.
    module : str
        Module with `available(network, device)` and `run(network, volume, device, precision,
        threads)`, and for GPUs `logits(network, tensor, precision)`, or with these names behind
        `prefix`.
    rank : int
        Order in which `auto` tries the backends, lowest first: on CPUs the measured order of
        speed at depth 100 (see benchmarks/).
    precisions : tuple of str
        What it can compute in, "float32" first.
    prefix : str
        Start of the functions' names in `module`.
    memory : str
        Module with `predict_bytes(settings, box_shape, precision)`, or with this name behind
        `prefix`; by default `module`. It imports no torch, so that rules can ask it.
    devices : bool
        It runs on CPUs and on GPUs; `memory` has `gpu_predict_bytes` too.
    stored : bool
        It takes a `voxmill.networks.stored.StoredNetwork` too; others get the torch module.
    sometimes : bool
        `auto` takes it only where the module's `unsuited(settings, box_shape)` gives no reason
        against it.
    """

    name: str
    module: str
    rank: int
    precisions: tuple[str, ...] = ("float32",)
    prefix: str = ""
    memory: str = ""
    devices: bool = False
    stored: bool = False
    sometimes: bool = False

    def _wanted(self, network: Network) -> Any:
        return network if self.stored else module_of(network)

    def _function(self, name: str, module: str = "") -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(
            importlib.import_module(module or self.module), self.prefix + name
        )
        return function

    def available(self, network: Network, device: str) -> str | None:
        """None if this backend can run the network on the device, else the reason why not."""
        reason: str | None = self._function("available")(self._wanted(network), device)
        return reason

    def unusable(self, network: Network, device: str, precision: str) -> str | None:
        """None if this backend can run the network in the precision, else the reason why not."""
        if precision not in self.precisions:
            return f"its precisions are {', '.join(self.precisions)}, found {precision}"
        return self.available(network, device)

    def unsuited(self, network: Network, box_shape: Shape) -> str | None:
        """None, or why another backend is faster for this network and box."""
        if not self.sometimes:
            return None
        reason: str | None = self._function("unsuited")(network.settings, tuple(box_shape))
        return reason

    def run(
        self, network: Network, volume: np.ndarray, device: str, precision: str, threads: int
    ) -> np.ndarray:
        """Probabilities (outputs, z, y, x) of a float32 volume (inputs, z, y, x)."""
        probabilities: np.ndarray = self._function("run")(
            self._wanted(network), volume, device, precision, threads
        )
        return probabilities

    def logits(self, network: Network, volume: torch.Tensor, precision: str) -> torch.Tensor:
        """Logits (outputs, z, y, x), float32 on the GPU of a float32 volume (inputs, z, y, x)."""
        evaluate = self._function("logits")
        found: torch.Tensor = evaluate(self._wanted(network), volume, precision)
        return found

    def predict_bytes(
        self, settings: NetworkSettings, box_shape: Shape, precision: str, device: str = "cpu"
    ) -> int:
        """Peak bytes of `run` on a device, in addition to weights, its result included.

        The volume counts on a GPU, where the run copies it to; on a CPU it does not.
        """
        on_gpu = self.devices and device.startswith("cuda")
        name = "gpu_predict_bytes" if on_gpu else "predict_bytes"
        needed = self._function(name, self.memory)
        return int(needed(settings, tuple(box_shape), precision))
