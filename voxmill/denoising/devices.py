"""Devices and precision of a fit."""

import contextlib
import logging
from collections.abc import Iterator, Sequence

import torch

from voxmill.config.denoising import FitPrecision
from voxmill.runtime.cards import cudnn_problem
from voxmill.runtime.cpu import cpu_flags
from voxmill.runtime.devices import claim
from voxmill.runtime.errors import VoxmillError

log = logging.getLogger(__name__)

# CPU flags of instructions for bfloat16: three of x86, one of ARM.
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"}


@contextlib.contextmanager
def held_devices(
    names: Sequence[str],
    precision: str,
    record_path: str | None = None,
    task: str = "",
    at_once: int = 1,
) -> Iterator[tuple[torch.device, ...]]:
    """Hold as many GPUs as are named while the block runs, so that no other job uses them.

    The cluster chooses the GPUs, or `voxmill.runtime.devices.claim` on a workstation: `cuda:0` is
    the first of those held. Arguments and errors are those of `resolve_devices`; `record_path` and
    `task` are those of `claim`.
    """
    if len(set(names)) < len(names) or not all(map(_known, names)):
        resolve_devices(names, precision, at_once)  # raises the error
    wanted = "auto" if "auto" in names else "cuda"
    number = sum(name != "cpu" for name in names)
    with claim(number, wanted, record_path, task) as held:
        if len(held.devices) < number:
            # Tests may use the CPU in place of a GPU, but not in place of two.
            resolve_devices(names, precision, at_once)
        taken = iter(held.devices)
        here = [n if n == "cpu" else next(taken) for n in names]
        yield resolve_devices(here, precision, at_once)


def _known(name: str) -> bool:
    return name in ("auto", "cpu", "cuda") or name.startswith("cuda:")


def resolve_devices(
    names: Sequence[str], precision: str = "float32", at_once: int = 1
) -> tuple[torch.device, ...]:
    """Look up devices by name, before anything is allocated.

    Parameters
    ----------
    names : sequence of str
        One or two for each fit of "cpu", "cuda", "cuda:0", ...; "auto" is the first GPU, or the
        CPU if there is none.
    precision : str
        Of the fit; float16 needs GPUs.
    at_once : int
        Fits that run at the same time.

    Raises
    ------
    VoxmillError
        If there are not one or two names for each fit, a device is unknown, missing or named
        twice, or one cannot compute in the precision.
    """
    if isinstance(names, str) or len(names) not in (at_once, 2 * at_once):
        each = f" for each of {at_once} fits" if at_once > 1 else ""
        raise VoxmillError(f"devices: expected a list of one or two devices{each}, found {names!r}")
    devices = tuple(_resolve(name) for name in names)
    if len(set(devices)) < len(devices):
        raise VoxmillError(
            f"devices: {devices[0]} is named twice; name two GPUs, such as [cuda:0, cuda:1], or "
            "one device."
        )
    for device in devices:
        _check_precision(device, precision)
    return devices


def of_each_fit(devices: Sequence[torch.device], at_once: int) -> list[tuple[torch.device, ...]]:
    """Share devices among fits that run at once: one or two for each, in order.

    >>> of_each_fit([torch.device(name) for name in ("cuda:0", "cuda:1")], 2)
    [(device(type='cuda', index=0),), (device(type='cuda', index=1),)]
    """
    each = len(devices) // at_once
    return [tuple(devices[i * each : (i + 1) * each]) for i in range(at_once)]


def resolve_precision(precision: FitPrecision, devices: Sequence[torch.device]) -> FitPrecision:
    """Choose the precision of a fit on these devices, a key of `precision.DTYPES`.

    Parameters
    ----------
    precision : str
        One of `voxmill.config.denoising.PRECISIONS`. `auto` is float16 on GPUs, bfloat16 on a
        CPU that has instructions for it, else float32. On other CPUs bfloat16 is far slower than
        float32: it is kept, with a warning in the log; so is half precision on GPUs where cuDNN
        should not compute in it.
    devices : sequence of torch.device
        From `resolve_devices`.
    """
    on_cpu = any(device.type == "cpu" for device in devices)
    instructions = not _BFLOAT16.isdisjoint(cpu_flags().split())
    if precision == "auto":
        precision = "float16" if not on_cpu else "bfloat16" if instructions else "float32"
        log.info("precision auto: %s", precision)
    elif precision == "bfloat16" and on_cpu and not instructions:
        log.warning(
            "precision bfloat16: this CPU has no instructions for it and takes many times as long "
            "as with float32; use `precision: auto` or float32."
        )
    half_on_gpu = precision != "float32" and not on_cpu
    if half_on_gpu and (problem := cudnn_problem(torch.backends.cudnn.version())):
        log.warning("%s.", problem)
    return precision


def _resolve(name: str) -> torch.device:
    if name == "auto":
        name = "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise VoxmillError(f"devices: expected auto, cpu, cuda:0, ..., found {name!r}")
    if device.type == "cpu":
        return torch.device("cpu")
    index, count = device.index or 0, torch.cuda.device_count()
    if index >= count:
        raise VoxmillError(
            f"devices: {name} is not here: PyTorch {torch.__version__} sees {count} CUDA "
            "device(s) (check nvidia-smi, CUDA_VISIBLE_DEVICES and the job's GPU request)."
        )
    return torch.device("cuda", index)


def _check_precision(device: torch.device, precision: str) -> None:
    if precision == "float16" and device.type == "cpu":
        raise VoxmillError(
            "precision float16: the CPU has no fast arithmetic for it; use float32 or bfloat16, "
            "or a GPU."
        )
    if precision == "bfloat16" and device.type == "cuda":
        with torch.cuda.device(device):
            supported = torch.cuda.is_bf16_supported(including_emulation=False)
        if not supported:
            raise VoxmillError(
                f"precision bfloat16: {torch.cuda.get_device_name(device)} does not support it; "
                "use float16."
            )
