"""One registry of the ways to evaluate a network; importing this module does not import torch.

A backend maps a normalised volume to probabilities. Every float32 backend gives the reference's
("torch") numbers within 1e-4; the boundary is zero all round for each of them. On a CPU `auto`
takes the first one in the measured order of speed, on a GPU the fastest of a trial.
"""

import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from voxmill.networks.stored import module_of
from voxmill.runtime.errors import VoxmillError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backend:
    """A way to evaluate a network.

    Parameters
    ----------
    name : str
    module : str
        Module with `available(network, device)` and `run(network, volume, device, precision,
        threads)`, or with these names behind `prefix`.
    rank : int
        Order in which `auto` tries the backends, lowest first: on CPUs the measured order of
        speed at depth 100 (see benchmarks/).
    precisions : tuple of str
    prefix : str
    memory : str
        Module with `predict_bytes(settings, box_shape, precision)`, or with this name behind
        `prefix`; by default `module`. For CPUs it can be had without torch.
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
    stored: bool = False
    sometimes: bool = False

    def _wanted(self, network):
        return network if self.stored else module_of(network)

    def _function(self, name: str, module: str = "") -> Callable:
        return getattr(importlib.import_module(module or self.module), self.prefix + name)

    def available(self, network, device: str) -> str | None:
        """None if this backend can run the network on the device, else the reason why not."""
        return self._function("available")(self._wanted(network), device)

    def unsuited(self, network, box_shape) -> str | None:
        """None, or why another backend is faster for this network and box."""
        if not self.sometimes:
            return None
        return self._function("unsuited")(network.settings, tuple(box_shape))

    def run(self, network, volume, device: str, precision: str, threads: int) -> np.ndarray:
        """Probabilities (outputs, z, y, x) of a float32 volume (inputs, z, y, x)."""
        return self._function("run")(self._wanted(network), volume, device, precision, threads)

    def predict_bytes(self, settings, box_shape, precision: str) -> int:
        """Peak bytes of `run` beyond volume and weights, its result included."""
        return self._function("predict_bytes", self.memory)(settings, tuple(box_shape), precision)


_ALL = (
    Backend("stencil", "voxmill.engine.stencil", 5, stored=True, sometimes=True),
    Backend("fourier", "voxmill.engine.fourier", 10, ("float32", "bfloat16"), stored=True),
    Backend("gpu-fourier", "voxmill.engine.gpu_fourier", 20, ("float32", "float16")),
    Backend("gpu-direct", "voxmill.engine.gpu_direct", 30, ("float32", "float16")),
    Backend(
        "torch-fast",
        "voxmill.engine.torch_backends",
        50,
        ("float32",),
        "fast_",
        "voxmill.engine.torch_memory",
    ),
    Backend("openvino", "voxmill.engine.runtimes", 60, ("float32", "bfloat16"), "openvino_"),
    Backend("onnxruntime", "voxmill.engine.runtimes", 70, ("float32",), "onnxruntime_"),
    Backend(
        "torch",
        "voxmill.engine.torch_backends",
        90,
        ("float32", "bfloat16", "float16"),
        "plain_",
        "voxmill.engine.torch_memory",
    ),
)
BACKENDS: dict[str, Backend] = {backend.name: backend for backend in _ALL}


def choose(backend: str, network, device: str, precision: str, box_shape) -> Backend:
    """The backend of a name, or for "auto" the fastest one present.

    Parameters
    ----------
    backend : str
        "auto" or a key of `BACKENDS`.
    network : torch module
        Its `settings` and type decide which backends can evaluate it.
    device : str
        As torch names it, "cpu" or "cuda:0".
    precision : str
        "float32", "bfloat16" or "float16".
    box_shape : (3,) ints
        Voxels of a box, z, y, x.

    Raises
    ------
    VoxmillError
        If the name is unknown, or that backend can't run this network here; it says why.
    """
    if backend != "auto":
        if backend not in BACKENDS:
            raise VoxmillError(
                f"engine setting backend: expected auto or one of {sorted(BACKENDS)}, "
                f"found {backend!r}"
            )
        if reason := _unusable(BACKENDS[backend], network, device, precision):
            raise VoxmillError(
                f"engine setting backend: {backend} can't be used here: {reason}. "
                "Choose another one or auto."
            )
        return BACKENDS[backend]
    reasons, usable = [], []
    for candidate in sorted(BACKENDS.values(), key=lambda b: b.rank):
        reason = _unusable(candidate, network, device, precision)
        if reason := reason or candidate.unsuited(network, box_shape):
            reasons.append(f"not {candidate.name}: {reason}")
        else:
            usable.append(candidate)
            if not device.startswith("cuda"):
                break
    if not usable:
        raise VoxmillError(
            f"engine setting precision: no backend computes in {precision} on {device} "
            f"({'; '.join(reasons)}). Choose float32."
        )
    logger.info(
        "backend: %s for boxes of %s on %s, %s (%s)",
        " or ".join(candidate.name for candidate in usable),
        "x".join(str(n) for n in box_shape),
        device,
        precision,
        "; ".join(reasons) or "it is the fastest of all",
    )
    if len(usable) == 1:
        return usable[0]
    from voxmill.engine.trial import fastest

    return fastest(usable, network, device, precision, box_shape)


def _unusable(backend: Backend, network, device: str, precision: str) -> str | None:
    if precision not in backend.precisions:
        return f"it computes in {' or '.join(backend.precisions)}, not in {precision}"
    return backend.available(network, device)


def forward(
    network,
    volume: np.ndarray,
    backend: str = "auto",
    device: str = "cpu",
    precision: str = "float32",
    threads: int = 1,
) -> np.ndarray:
    """Probabilities of one box, every map zero outside of it.

    Parameters
    ----------
    network : torch module such as `voxmill.networks.msdnet.MSDNet`, or a `StoredNetwork`
    volume : (inputs, z, y, x) float32 array
        Normalised intensities.
    backend, device, precision : str
        See `choose`.
    threads : int
        CPU threads.

    Returns
    -------
    (outputs, z, y, x) float32 array
        Probabilities: the sigmoid of the logits.

    Raises
    ------
    VoxmillError
        As `choose`, or if the volume is not of four axes with the network's inputs.
    """
    if volume.ndim != 4 or volume.shape[0] != network.settings.inputs or 0 in volume.shape:
        raise VoxmillError(
            f"forward: expected a volume of shape ({network.settings.inputs}, z, y, x), "
            f"found {volume.shape}"
        )
    volume = np.ascontiguousarray(volume, dtype=np.float32)
    chosen = choose(backend, network, device, precision, volume.shape[1:])
    return chosen.run(network, volume, device, precision, threads)
