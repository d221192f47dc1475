"""The fastest backend on a GPU: each one runs a small box once a process, and must be right.

How fast our kernels are against cuDNN depends on the GPU and on the network, and whether Triton
compiles on the driver that is there shows only when it does. So a backend that fails, or strays
from plain PyTorch, is left out here with its reason.
"""

import functools
import logging
import time

import numpy as np

from voxmill.runtime.free_memory import free_bytes

logger = logging.getLogger(__name__)

EDGE = 128  # voxels; half a second for 100 layers where plain PyTorch does 4 million a second
REPEATS = 2
# Largest difference from PyTorch in float32, in probability.
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 5e-2}


def fastest(candidates, network, device: str, precision: str, box_shape):
    """The fastest of several backends, by one trial a process for each kind of network.

    Parameters
    ----------
    candidates : list of Backend
        Usable ones, plain PyTorch among them.
    network : torch module
    device, precision : str
    box_shape : (3,) ints
        Voxels of a box to come; the trial's has edges of `EDGE` at most.

    Returns
    -------
    Backend
    """
    shape = _box_that_fits(candidates, network.settings, device, precision, box_shape)
    key = (network.settings, device, precision, shape)
    if key not in _chosen:
        _chosen[key] = _try_all(candidates, network, device, precision, shape)
    return _chosen[key]


_chosen: dict = {}


def _box_that_fits(candidates, settings, device: str, precision: str, box_shape):
    """Edges of the trial's box: half of the free memory holds it with any backend."""
    edge, free = EDGE, free_bytes(device)
    while True:
        shape = tuple(min(edge, n) for n in box_shape)
        needed = max(c.predict_bytes(settings, shape, precision) for c in candidates)
        if needed <= free // 2 or edge == 1:
            return shape
        edge //= 2


def _try_all(candidates, network, device: str, precision: str, shape):
    from voxmill.engine.backends import BACKENDS

    inputs = network.settings.inputs
    volume = np.random.default_rng(0).random((inputs, *shape), dtype=np.float32)
    expected = BACKENDS["torch"].run(network, volume, device, "float32", 1)
    seconds, said = {}, []
    for candidate in candidates:
        run = functools.partial(candidate.run, network, volume, device, precision, 1)
        try:
            problem = _difference(run(), expected, TOLERANCE[precision])
            if problem is None:
                seconds[candidate] = min(_timed(run) for _ in range(REPEATS))
        except Exception as error:
            # Compilers and drivers fail in their own ways; PyTorch is still there.
            first = (str(error).strip() or "no details").splitlines()[0]
            problem = f"it failed with {type(error).__name__}: {first}"
        if problem:
            logger.warning("backend: %s is left out on %s: %s", candidate.name, device, problem)
            said.append(f"not {candidate.name}: {problem}")
        else:
            said.append(f"{candidate.name} {seconds[candidate]:.3g} s")
    _give_back(device)
    # If all of them failed, the last one, plain PyTorch, tells why.
    best = min(seconds, key=seconds.get) if seconds else candidates[-1]
    size = "x".join(map(str, shape))
    logger.info(
        "backend: %s on %s, %s, after a trial on %s voxels (%s)",
        best.name, device, precision, size, "; ".join(said),
    )  # fmt: skip
    return best


def _difference(found, expected, tolerance: float) -> str | None:
    """What is wrong with a result, or None."""
    largest = float(np.abs(found - expected).max())
    if largest <= tolerance:
        return None
    return f"it strays from PyTorch by {largest:.2g} in probability, more than {tolerance:g}"


def _timed(run) -> float:
    start = time.perf_counter()
    run()  # its result is on the host, so the GPU has finished
    return time.perf_counter() - start


def _give_back(device: str) -> None:
    """Leave the GPU's memory to the plan of the blocks."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
