"""The registry of backends, and the choice among them; importing this module imports no torch.

Every float32 backend gives the reference's ("torch") numbers within 1e-4; each takes everything
outside of the box as zero, before every layer. On a CPU `auto` takes the first usable one in the
measured order of speed, on a GPU the fastest one of a trial.
"""

import logging

import numpy as np

from voxmill.engine.backend import Backend, Shape
from voxmill.engine.trial import fastest
from voxmill.networks.stored import Network
from voxmill.runtime.errors import VoxmillError

logger = logging.getLogger(__name__)

_ALL = (
    Backend("stencil", "voxmill.engine.stencil", 5, stored=True, sometimes=True),
    Backend("fourier", "voxmill.engine.fourier", 10, ("float32", "shared16"), stored=True),
    Backend("gpu-fourier", "voxmill.engine.gpu_fourier", 20, ("float32", "float16")),
    Backend("gpu-fused", "voxmill.engine.gpu_fourier", 25, ("float16",), "fused_"),
    Backend("gpu-direct", "voxmill.engine.gpu_direct", 30, ("float32", "float16")),
    Backend(
        "torch-fast",
        "voxmill.engine.torch_backends",
        50,
        ("float32",),
        "fast_",
        "voxmill.engine.torch_memory",
        devices=True,
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
        devices=True,
    ),
)
BACKENDS: dict[str, Backend] = {backend.name: backend for backend in _ALL}


def choose(
    backend: str,
    network: Network,
    device: str,
    precision: str,
    box_shape: Shape,
    free: int | None = None,
) -> Backend:
    """The backend with a name, or for "auto" the fastest one that can run here.

    Parameters
    ----------
    backend : str
        "auto" or a key of `BACKENDS`.
    network : torch module or StoredNetwork
        Its `settings` and type decide which backends can evaluate it.
    device : str
        As torch names it, "cpu" or "cuda:0".
    precision : str
        Of the backend's `precisions`: "float32", "bfloat16", "float16" or "shared16".
    box_shape : (3,) ints
        Voxels of a box, z, y, x.
    free : int, optional
        Bytes that there are for a box on a GPU; by default those that are free now.

    Raises
    ------
    VoxmillError
        If the name is unknown, or that backend can't run this network here: the message says why.
    """
    if backend != "auto":
        if backend not in BACKENDS:
            raise VoxmillError(
                f"prediction.backend: expected auto or one of {sorted(BACKENDS)}, found {backend!r}"
            )
        if reason := BACKENDS[backend].unusable(network, device, precision):
            raise VoxmillError(
                f"prediction.backend: {backend} can't be used here: {reason}. "
                "Choose another backend, or auto."
            )
        return BACKENDS[backend]
    reasons, usable = [], []
    for candidate in sorted(BACKENDS.values(), key=lambda b: b.rank):
        reason = candidate.unusable(network, device, precision)
        if reason := reason or candidate.unsuited(network, box_shape):
            reasons.append(f"not {candidate.name}: {reason}")
        else:
            usable.append(candidate)
            if not device.startswith("cuda"):
                break
    if not usable:
        raise VoxmillError(
            f"prediction.precision: no backend computes in {precision} on {device} "
            f"({'; '.join(reasons)}). Choose float32."
        )
    logger.info(
        "backend: %s for boxes of %s on %s, %s (%s)",
        " or ".join(candidate.name for candidate in usable),
        "x".join(str(n) for n in box_shape),
        device,
        precision,
        "; ".join(reasons) or "the first in order of speed",
    )
    if len(usable) == 1:
        return usable[0]
    return fastest(usable, BACKENDS["torch"], network, device, precision, box_shape, free)


def forward(
    network: Network,
    volume: np.ndarray,
    backend: str = "auto",
    device: str = "cpu",
    precision: str = "float32",
    threads: int = 1,
) -> np.ndarray:
    """Probabilities of one box; outside of it every feature map is zero.

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
