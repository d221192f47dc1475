"""Predict the memory of a fit on each device, before anything is allocated.

Two iterations of the real fit run on PyTorch's fake tensors, which have shapes and devices but no
data, and every storage is counted while it exists. Not counted: workspace of the convolution
library, fragmentation, and the CUDA context (some hundred MB).
"""

import contextlib
import dataclasses
import logging
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from voxmill.config.denoising import DenoiseSettings
from voxmill.denoising.fitting import Fit
from voxmill.denoising.placement import place_units, unit_names
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.free_memory import free_bytes, is_out_of_memory

log = logging.getLogger(__name__)

# They represent the first and the second device: PyTorch does not check that they are CUDA.
STAND_INS = (torch.device("cpu"), torch.device("meta"))

# What a fit asks for beyond its plan: workspace of cuDNN and memory in pieces are not counted.
MARGIN = {"cuda": 1.2, "cpu": 1.0}

_REMEDIES = {
    "cuda": "Use `precision: float16` or bfloat16, `checkpointing: true`, two devices, or fewer "
    "channels.",
    "cpu": "Use `checkpointing: true`, fewer channels or a GPU, or give the job more memory "
    "(`--set-resources denoise_scan:mem_mb=...`). `precision: bfloat16` halves the memory, on CPUs "
    "that have instructions for it.",
}


@dataclass(frozen=True)
class MemoryPlan:
    """Predicted memory of a fit.

    Attributes
    ----------
    devices : tuple of str
        Names of one or two devices.
    cut : str
        First unit on the second device; empty with one device.
    peak_bytes : tuple of int
        Per device, the most memory in use at once during an iteration.
    resting_bytes : tuple of int
        Per device, the memory in use between iterations: weights, optimiser, volumes.
    """

    devices: tuple[str, ...]
    cut: str
    peak_bytes: tuple[int, ...]
    resting_bytes: tuple[int, ...]

    def __str__(self) -> str:
        parts = [
            f"{name}: {peak / 2**30:.2f} GiB at most, {resting / 2**30:.2f} GiB at rest"
            for name, peak, resting in zip(
                self.devices, self.peak_bytes, self.resting_bytes, strict=True
            )
        ]
        cut = f"; cut before {self.cut}" if self.cut else ""
        return "memory plan: " + "; ".join(parts) + cut


class StorageCounter(TorchDispatchMode):
    """Counts the bytes of all existing tensors per device, and their peak.

    Attributes
    ----------
    alive, peak : dict of torch.device to int
        Bytes now, and the most since the last `reset_peak`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[torch.device, int] = {}
        self.peak: dict[torch.device, int] = {}
        self._known: dict[int, weakref.ref] = {}

    def __torch_dispatch__(
        self,
        func: Callable,
        types: Sequence[type],
        args: tuple = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operation and count the storages of its results."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf)
        return result

    def _count(self, tensor: torch.Tensor) -> None:
        storage, device = tensor.untyped_storage(), tensor.device
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()

        def forget(_: weakref.ref) -> None:
            self.alive[device] -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, forget)
        self.alive[device] = self.alive.get(device, 0) + size
        self.peak[device] = max(self.peak.get(device, 0), self.alive[device])

    def reset_peak(self) -> None:
        """Start a new peak from the bytes now."""
        self.peak = dict(self.alive)


def plan_memory(
    shape: tuple[int, int, int], settings: DenoiseSettings, devices: Sequence[str | torch.device]
) -> MemoryPlan:
    """Predict the peak memory of a fit; with two devices and `cut: auto`, choose the cut.

    Parameters
    ----------
    shape : (3,) tuple of int
        Of the padded volume.
    settings : DenoiseSettings
    devices : sequence of str or torch.device
        One or two.

    Returns
    -------
    MemoryPlan
        With `cut: auto`, of the cut at which the fuller of the two devices holds least.
    """
    names = tuple(str(device) for device in devices)
    units = unit_names(settings)
    if len(names) == 1:
        return MemoryPlan(names, "", *_trace(shape, settings, STAND_INS[:1]))
    if settings.cut != "auto":
        placement = place_units(units, STAND_INS, settings.cut)
        cut = next(unit for unit in units if placement[unit] == STAND_INS[1])
        return MemoryPlan(names, cut, *_trace(shape, settings, STAND_INS, cut))
    plans: dict[int, MemoryPlan] = {}

    def plan(index: int) -> MemoryPlan:
        if index not in plans:
            traced = _trace(shape, settings, STAND_INS, units[index])
            plans[index] = MemoryPlan(names, units[index], *traced)
        return plans[index]

    # A later cut puts more on the first device: this search finds where it becomes the fuller one.
    low, high = 1, len(units) - 1
    while low < high:
        middle = (low + high) // 2
        first, second = plan(middle).peak_bytes
        low, high = (low, middle) if first >= second else (middle + 1, high)
    for index in (low - 1, low):
        if index >= 1:
            plan(index)
    return min(plans.values(), key=lambda planned: max(planned.peak_bytes))


def _trace(
    shape: tuple[int, ...],
    settings: DenoiseSettings,
    devices: Sequence[torch.device],
    cut: str = "decoder",
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Peak and resting bytes per device of two iterations on fake tensors."""
    # Other stopping rules need numbers, which fake tensors lack; the state of a rule is small.
    settings = dataclasses.replace(settings, stop=dataclasses.replace(settings.stop, rule="fixed"))
    placement = place_units(unit_names(settings), devices, cut)
    with FakeTensorMode(), StorageCounter() as counter:
        fit = Fit(torch.empty(shape), settings, placement)
        for number in (1, 2):
            resting = dict(counter.alive)
            counter.reset_peak()
            loss, output, loss_target = fit.loss(number)
            # This is `Stepper.step` without the loss scale, which needs numbers.
            fit.stepper.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            fit.stepper.optimiser.step()
            fit.average.lerp_(output, 0.01)
            del loss, output, loss_target
    peak = tuple(counter.peak.get(device, 0) for device in devices)
    return peak, tuple(resting.get(device, 0) for device in devices)


def check_memory(plan: MemoryPlan, devices: Sequence[torch.device]) -> None:
    """Log a plan and check that it fits into the free memory of its devices.

    Parameters
    ----------
    plan : MemoryPlan
    devices : sequence of torch.device
        Those of the plan.

    Raises
    ------
    VoxmillError
        If a device has less free memory than the plan's peak, on a GPU than 1.2 times that; for
        the CPU, the limit of the job counts.
    """
    log.info("%s", plan)
    for device, peak in zip(devices, plan.peak_bytes, strict=True):
        free, needed = free_bytes(str(device)), MARGIN[device.type] * peak
        if needed > free:
            raise VoxmillError(
                f"{device}: this fit needs {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are "
                f"free. {_REMEDIES[device.type]}"
            )


@contextlib.contextmanager
def out_of_memory_told(plan: MemoryPlan) -> Iterator[None]:
    """Turn what PyTorch says when memory is short into an error that says what to do.

    Raises
    ------
    VoxmillError
        If the block runs out of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        kinds = dict.fromkeys(torch.device(name).type for name in plan.devices)
        raise VoxmillError(
            f"{', '.join(plan.devices)}: this fit ran out of memory beyond its plan ({plan}). "
            "Another process may use the device too. " + " ".join(_REMEDIES[kind] for kind in kinds)
        ) from error
