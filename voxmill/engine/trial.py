"""The choice of the fastest backend on a GPU: each candidate evaluates a small and a large box.

Whether our kernels or cuDNN are faster depends on the GPU and on the network, and only a run shows
whether Triton works with the installed driver. A backend that fails, or whose result differs too
much from that of plain PyTorch, is left out with a warning that says why.

On a small box a backend of many small kernels loses against one of few, whatever it does at a real
one. The seconds of both boxes give a line over the planned bytes, which count margins too: its
slope tells what a real block will take. There is one trial for each network and precision, which
is kept on the disk (`trial_file`).
"""

import functools
import logging
import time
from collections.abc import Callable, Sequence

import numpy as np

from voxmill.engine import trial_file
from voxmill.engine.backend import Backend, Shape
from voxmill.engine.trial_file import Line, Outcome
from voxmill.networks import NetworkSettings
from voxmill.networks.stored import Network
from voxmill.runtime.free_memory import free_bytes

logger = logging.getLogger(__name__)

EDGES = (96, 192)  # voxels; at 192, 100 layers take two seconds at 4 million voxels a second
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
    free: int | None = None,
) -> Backend:
    """The fastest of several backends for boxes of a shape.

    Parameters
    ----------
    candidates : sequence of Backend
        Those that can run the network on the device. If all of them fail, the last one is taken.
    reference : Backend
        Its float32 result is the right one.
    network : torch module or StoredNetwork
        Its settings decide, not its weights: a training tries once.
    device, precision : str
    box_shape : (3,) ints
        Voxels of the boxes that are to be evaluated, as far as they fit the memory.
    free : int, optional
        Bytes of that memory; by default those that are free now.

    Returns
    -------
    Backend
    """
    names = tuple(candidate.name for candidate in candidates)
    key = (network.settings, device, precision, names)
    if key not in _outcomes:
        path = trial_file.path_of(network.settings, device, precision, names)
        found = trial_file.read(path, names)
        if found is None:
            found = _try_all(candidates, reference, network, device, precision)
            trial_file.write(path, found)
        _warn(found, device)
        _outcomes[key] = found
    return _best(candidates, _outcomes[key], network.settings, device, precision, box_shape, free)


_outcomes: dict[tuple[NetworkSettings, str, str, tuple[str, ...]], Outcome] = {}


def _warn(outcome: Outcome, device: str) -> None:
    for name, problem in outcome.problems.items():
        logger.warning("backend: %s is left out on %s: %s", name, device, problem)


def _best(
    candidates: Sequence[Backend],
    outcome: Outcome,
    settings: NetworkSettings,
    device: str,
    precision: str,
    box_shape: Shape,
    free: int | None,
) -> Backend:
    """The candidate with the least seconds a voxel of the largest block that fits its memory."""
    free = free_bytes(device) if free is None else free
    rates: dict[Backend, float] = {}
    for candidate in candidates:
        if (line := outcome.lines.get(candidate.name)) is not None:
            plan = functools.partial(
                candidate.predict_bytes, settings, precision=precision, device=device
            )
            block = _block(plan, box_shape, free)
            rates[candidate] = line.seconds(plan(block)) / float(np.prod(block))
    if not rates:
        return candidates[-1]  # the caller sees the error of the last one, plain PyTorch
    best = min(rates, key=lambda candidate: rates[candidate])
    said = [f"{candidate.name} {1e9 * rate:.3g} ns a voxel" for candidate, rate in rates.items()]
    logger.info(
        "backend: %s on %s, %s, by trials of up to %s voxels, for boxes of %s (%s)",
        best.name, device, precision, outcome.size,
        "x".join(map(str, box_shape)), "; ".join(said),
    )  # fmt: skip
    return best


def _block(plan: Callable[[Shape], int], box_shape: Shape, free: int) -> Shape:
    """A box halved along its longest edge until it fits, as blocks of a tile are about."""
    edges = list(box_shape)
    while plan(tuple(edges)) > free and max(edges) > 1:
        longest = int(np.argmax(edges))
        edges[longest] = -(-edges[longest] // 2)
    return tuple(edges)


def _boxes_that_fit(
    candidates: Sequence[Backend], settings: NetworkSettings, device: str, precision: str
) -> list[Shape]:
    """The trial's two boxes: each backend evaluates both in half of the free memory."""
    edges, free = EDGES, free_bytes(device)

    def needed(edge: int) -> int:
        shape = (edge,) * 3
        return max(c.predict_bytes(settings, shape, precision, device) for c in candidates)

    while needed(edges[1]) > free // 2 and edges[0] > 1:
        edges = edges[0] // 2, edges[1] // 2
    return [(edge,) * 3 for edge in edges]


def _try_all(
    candidates: Sequence[Backend],
    reference: Backend,
    network: Network,
    device: str,
    precision: str,
) -> Outcome:
    """Time all candidates on both boxes, those of equal numbers with the reference."""
    settings = network.settings
    problems: dict[str, str] = {}
    times: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    boxes = _boxes_that_fit(candidates, settings, device, precision)
    for shape in boxes:
        volume = np.random.default_rng(0).random((settings.inputs, *shape), dtype=np.float32)
        expected = reference.run(network, volume, device, "float32", 1)
        for candidate in (c for c in candidates if c.name not in problems):
            run = functools.partial(candidate.run, network, volume, device, precision, 1)
            try:
                problem = _difference(run(), expected, TOLERANCE[precision])
                if problem is None:
                    times[candidate.name].append(min(_timed(run) for _ in range(REPEATS)))
            except Exception as error:
                # Compilers and drivers raise errors of any type; plain PyTorch remains.
                first = (str(error).strip() or "no details").splitlines()[0]
                problem = f"it failed with {type(error).__name__}: {first}"
            if problem:
                problems[candidate.name] = problem
            _give_back(device)
    lines = {
        c.name: Line.through(
            [c.predict_bytes(settings, shape, precision, device) for shape in boxes], times[c.name]
        )
        for c in candidates
        if c.name not in problems
    }
    return Outcome("x".join(map(str, boxes[-1])), lines, problems)


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
    """Free the GPU's memory before the next backend, and before the sizes of blocks are chosen."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
