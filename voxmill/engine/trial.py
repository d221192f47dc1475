"""The choice of the fastest backend on a GPU: each candidate evaluates a small box once a process.

Whether our kernels or cuDNN are faster depends on the GPU and on the network, and only a run shows
whether Triton works with the installed driver. A backend that fails, or whose result differs too
much from that of plain PyTorch, is left out with a warning that says why.
"""

import functools
import logging
import time
from collections.abc import Callable, Sequence

import numpy as np

from voxmill.engine.backend import Backend, Shape
from voxmill.networks import NetworkSettings
from voxmill.networks.stored import Network
from voxmill.runtime.free_memory import free_bytes

logger = logging.getLogger(__name__)

EDGE = 128  # voxels; 100 layers take half a second at 4 million voxels a second
REPEATS = 2
# Largest difference from plain PyTorch in float32, in probability.
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 5e-2}


def fastest(
    candidates: Sequence[Backend],
    reference: Backend,
    network: Network,
    device: str,
    precision: str,
    box_shape: Shape,
) -> Backend:
    """The fastest of several backends, by one trial a process for each kind of network.

    Parameters
    ----------
    candidates : sequence of Backend
        Those that can run the network on the device. If all of them fail, the last one is taken.
    reference : Backend
        Its float32 result is the right one.
    network : torch module or StoredNetwork
    device, precision : str
    box_shape : (3,) ints
        Voxels of the boxes that are to be evaluated; the trial's box has edges of at most `EDGE`.

    Returns
    -------
    Backend
    """
    shape = _box_that_fits(candidates, network.settings, device, precision, box_shape)
    key = (network.settings, device, precision, shape)
    if key not in _chosen:
        _chosen[key] = _try_all(candidates, reference, network, device, precision, shape)
    return _chosen[key]


_chosen: dict[tuple[NetworkSettings, str, str, Shape], Backend] = {}


def _box_that_fits(
    candidates: Sequence[Backend],
    settings: NetworkSettings,
    device: str,
    precision: str,
    box_shape: Shape,
) -> Shape:
    """Edges of the trial's box: each backend evaluates it in half of the free memory."""
    edge, free = EDGE, free_bytes(device)
    while True:
        shape = tuple(min(edge, n) for n in box_shape)
        needed = max(c.predict_bytes(settings, shape, precision) for c in candidates)
        if needed <= free // 2 or edge == 1:
            return shape
        edge //= 2


def _try_all(
    candidates: Sequence[Backend],
    reference: Backend,
    network: Network,
    device: str,
    precision: str,
    shape: Shape,
) -> Backend:
    inputs = network.settings.inputs
    volume = np.random.default_rng(0).random((inputs, *shape), dtype=np.float32)
    expected = reference.run(network, volume, device, "float32", 1)
    seconds: dict[Backend, float] = {}
    said: list[str] = []
    for candidate in candidates:
        run = functools.partial(candidate.run, network, volume, device, precision, 1)
        try:
            problem = _difference(run(), expected, TOLERANCE[precision])
            if problem is None:
                seconds[candidate] = min(_timed(run) for _ in range(REPEATS))
        except Exception as error:
            # Compilers and drivers raise errors of any type; plain PyTorch remains.
            first = (str(error).strip() or "no details").splitlines()[0]
            problem = f"it failed with {type(error).__name__}: {first}"
        if problem:
            logger.warning("backend: %s is left out on %s: %s", candidate.name, device, problem)
            said.append(f"not {candidate.name}: {problem}")
        else:
            said.append(f"{candidate.name} {seconds[candidate]:.3g} s")
    _give_back(device)
    # If all of them failed, the caller sees the error of the last one, plain PyTorch.
    best = min(seconds, key=lambda candidate: seconds[candidate]) if seconds else candidates[-1]
    size = "x".join(map(str, shape))
    logger.info(
        "backend: %s on %s, %s, after a trial on %s voxels (%s)",
        best.name, device, precision, size, "; ".join(said),
    )  # fmt: skip
    return best


def _difference(found: np.ndarray, expected: np.ndarray, tolerance: float) -> str | None:
    """None, or by how much a result differs from the expected one."""
    largest = float(np.abs(found - expected).max())
    if largest <= tolerance:
        return None
    return f"it differs from PyTorch by {largest:.2g} in probability, more than {tolerance:g}"


def _timed(run: Callable[[], np.ndarray]) -> float:
    start = time.perf_counter()
    run()  # its result is on the host, so the GPU has finished
    return time.perf_counter() - start


def _give_back(device: str) -> None:
    """Free the GPU's memory before the sizes of blocks are chosen."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
