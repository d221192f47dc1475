"""How much memory a fit will need on each device, before anything is allocated.

Two iterations of the real fit run on PyTorch's fake tensors, which have shapes and devices but no
data, and every storage is counted from its birth to its death. Not counted: workspace of the
convolution library, fragmentation, and the CUDA context (some hundred MB).
"""

import dataclasses
import logging
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from voxmill.config.denoising import DenoiseSettings
from voxmill.denoising.devices import place_units
from voxmill.denoising.fitting import Fit
from voxmill.denoising.volume import unit_names
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.free_memory import free_bytes

log = logging.getLogger(__name__)

# Fake devices that stand for the first and the second: nothing checks that CUDA is there.
STAND_INS = (torch.device("cpu"), torch.device("meta"))

_REMEDIES = {
    "cuda": "Use `precision: float16` or bfloat16, `checkpointing: true`, two devices, or fewer "
    "channels.",
    "cpu": "Use `checkpointing: true`, fewer channels or a GPU, or give the job more memory "
    "(`--set-resources denoise_scan:mem_mb=...`); `precision: bfloat16` halves it, on CPUs that "
    "have instructions for it.",
}


@dataclass(frozen=True)
class MemoryPlan:
    """Predicted peak of memory.

    Attributes
    ----------
    devices : tuple of str
    cut : str
        First unit on the second device; empty with one device.
    peak_bytes : tuple of int
        Per device, the most that is alive at once during an iteration.
    resting_bytes : tuple of int
        Per device, what stays between iterations: weights, optimiser, volumes.
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
    """Bytes of all tensors alive, per device, and their peak.

    Attributes
    ----------
    alive, peak : dict of torch.device to int
    """

    def __init__(self):
        super().__init__()
        self.alive: dict[torch.device, int] = {}
        self.peak: dict[torch.device, int] = {}
        self._known: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._see(leaf)
        return result

    def _see(self, tensor: torch.Tensor) -> None:
        storage, device = tensor.untyped_storage(), tensor.device
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()

        def gone(_):
            self.alive[device] -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, gone)
        self.alive[device] = self.alive.get(device, 0) + size
        self.peak[device] = max(self.peak.get(device, 0), self.alive[device])

    def reset_peak(self) -> None:
        """Forget the peak so far."""
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
    devices : one or two devices

    Returns
    -------
    MemoryPlan
        With the cut at which the fuller of the two devices holds least.
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

    # A later cut puts more on the first device: find where the first becomes the fuller one.
    low, high = 1, len(units) - 1
    while low < high:
        middle = (low + high) // 2
        first, second = plan(middle).peak_bytes
        low, high = (low, middle) if first >= second else (middle + 1, high)
    for index in (low - 1, low):
        if index >= 1:
            plan(index)
    return min(plans.values(), key=lambda planned: max(planned.peak_bytes))


def _trace(shape, settings, devices, cut="decoder") -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Peak and resting bytes per device of two iterations on fake tensors."""
    # The rule's own state is small, and its arithmetic needs numbers that fake tensors lack.
    settings = dataclasses.replace(settings, stop=dataclasses.replace(settings.stop, rule="fixed"))
    placement = place_units(unit_names(settings), devices, cut)
    with FakeTensorMode(), StorageCounter() as counter:
        fit = Fit(torch.empty(shape), settings, placement)
        for number in (1, 2):
            resting = dict(counter.alive)
            counter.reset_peak()
            loss, output, wanted = fit.loss(number)
            # As `Stepper.step`, less the loss scale, whose value a fake tensor does not have.
            fit.stepper.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            fit.stepper.optimiser.step()
            fit.average.lerp_(output, 0.01)
            del loss, output, wanted
    peak = tuple(counter.peak.get(device, 0) for device in devices)
    return peak, tuple(resting.get(device, 0) for device in devices)


def check_memory(plan: MemoryPlan, devices: Sequence[torch.device]) -> None:
    """Log a plan, and refuse one that does not fit into the free memory of its devices.

    Raises
    ------
    VoxmillError
        If a device has less free memory than the plan's peak; that of the CPU is what the job's
        own limit leaves.
    """
    log.info("%s", plan)
    for device, peak in zip(devices, plan.peak_bytes, strict=True):
        free = free_bytes(str(device))
        if peak > free:
            raise VoxmillError(
                f"{device}: this fit needs {peak / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are "
                f"free. {_REMEDIES[device.type]}"
            )
