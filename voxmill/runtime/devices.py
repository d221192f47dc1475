"""Which device a job may use: not one that another job holds, and not the CPU without saying so.

A cluster assigns GPUs to a job through `CUDA_VISIBLE_DEVICES`. A workstation does not, so jobs
there take a free one (see `voxmill.runtime.slots`) and wait while all GPUs are taken. Each job
leaves a record (see `voxmill.runtime.records`).
"""

import contextlib
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxmill.runtime import cards, records, slots
from voxmill.runtime.errors import VoxmillError

DEVICES = ("auto", "cpu", "cuda")
ALLOW_CPU = "VOXMILL_ALLOW_CPU"
_POLL_S = 0.5
# PyTorch's memory grows in place, so that pieces of freed blocks serve as one for the next.
_ALLOCATOR = "expandable_segments:True"


@dataclass(frozen=True)
class Claim:
    """Devices that a job holds.

    Attributes
    ----------
    devices : tuple of str
        Names for PyTorch: `("cuda:0",)`, `("cuda:0", "cuda:1")` or `("cpu",)`.
    visible : tuple of str
        Names in `CUDA_VISIBLE_DEVICES`: indices or UUIDs of the node's GPUs; empty on the CPU.
    node : str
        Name of the node.
    """

    devices: tuple[str, ...]
    visible: tuple[str, ...]
    node: str


@contextlib.contextmanager
def claim(
    gpus: int = 1, device: str = "auto", record_path: str | Path | None = None, task: str = ""
) -> Iterator[Claim]:
    """Hold a job's devices while the block runs, and record the job.

    In a SLURM job the devices are those that SLURM assigned; elsewhere the first free ones of this
    machine, after a wait if all are taken. Call it before anything starts CUDA.

    Parameters
    ----------
    gpus : int
        GPUs that the job asked for; 0 means the CPU.
    device : {"auto", "cpu", "cuda"}
        `cpu` uses no GPU even if the job asked for one. `cuda` fails where there is none. `auto`
        also fails in a SLURM job that asked for GPUs and sees none; on a machine without GPUs it
        uses the CPU.
    record_path : path, optional
        File of records, one JSON object a line, to which the job appends.
    task : str
        What the record calls this job, such as its output.

    Yields
    ------
    Claim

    Raises
    ------
    VoxmillError
        If `device` is unknown, or the job asked for GPUs that cannot be used: the message names
        the node and the reason. With the environment variable VOXMILL_ALLOW_CPU=1 the job then
        computes on the CPU, for tests on machines without GPUs.
    """
    if device not in DEVICES:
        raise VoxmillError(f"device: expected one of {', '.join(DEVICES)}, found {device!r}.")
    record = records.start_record(task, node_name(), gpus, device)
    records.append(record_path, record | {"event": "start"})
    status = "failed"
    try:
        with _claimed(gpus, device) as held:
            record |= {"devices": held.devices, "visible": held.visible}
            record["claimed"] = records.now()
            records.append(record_path, record | {"event": "claim"})
            yield held
        status = "done"
    except BaseException as error:
        record["error"] = f"{type(error).__name__}: {error}"[:500]
        raise
    finally:
        record |= {"end": records.now(), "status": status, **records.peak_memory()}
        records.append(record_path, record | {"event": "end"})


@contextlib.contextmanager
def _claimed(gpus: int, device: str) -> Iterator[Claim]:
    """Yield the devices, whether SLURM or a lock assigns them."""
    node = node_name()
    if gpus == 0 or device == "cpu":
        yield Claim(("cpu",), (), node)
        return
    scheduled = "SLURM_JOB_ID" in os.environ
    seen = visible_gpus() if scheduled else _distinct(visible_gpus())
    if len(seen) < gpus:
        if device == "auto" and not scheduled and not seen:
            yield Claim(("cpu",), (), node)
            return
        if not _cpu_allowed():
            raise VoxmillError(_missing_message(node, gpus, seen))
        yield Claim(("cpu",), (), node)
        return
    if scheduled and len(seen) > gpus:
        raise VoxmillError(
            f"Node {node}: this job asked for {gpus} GPU(s) but sees {len(seen)} "
            f"(CUDA_VISIBLE_DEVICES={','.join(seen)}), some of which other jobs may use. "
            "The cluster does not confine jobs to their GPUs: ask its administrators for "
            "`Gres` with `File=` in gres.conf."
        )
    if gpus > 1 and (slices := [name for name in seen if name.startswith("MIG-")]):
        raise VoxmillError(
            f"Node {node}: this job asked for {gpus} GPUs and sees {', '.join(slices)}: a process "
            "can use one slice (MIG) of a card alone. Ask for one GPU, or for whole cards."
        )
    with contextlib.nullcontext(seen) if scheduled else _slots(seen, gpus) as taken:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(taken)
        # As nvidia-smi counts, and not with the fastest card first.
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        _set_allocator()
        yield Claim(_usable(node, taken), tuple(taken), node)


def visible_gpus() -> list[str]:
    """GPUs that this process may see: `CUDA_VISIBLE_DEVICES`, else all of a workstation.

    In a SLURM job the variable alone counts: other GPUs may belong to other jobs.
    """
    variable = os.environ.get("CUDA_VISIBLE_DEVICES")
    if variable is not None:
        seen = [name.strip() for name in variable.split(",")]
        # CUDA ignores all names after the first unknown one, usually -1.
        return [name for name in seen if name and name not in ("-1", "NoDevFiles")]
    if "SLURM_JOB_ID" in os.environ:
        return []
    return cards.names_of_all(_cards())


def _set_allocator() -> None:
    """Let PyTorch's memory on GPUs grow in place, unless the environment says how it shall."""
    if {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & os.environ.keys():
        return
    os.environ["PYTORCH_CUDA_ALLOC_CONF"] = _ALLOCATOR
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        # It may have read the environment when it was imported.
        torch._C._accelerator_setAllocatorSettings(_ALLOCATOR)


def _distinct(names: list[str]) -> list[str]:
    """Names without those of a card or slice that is named before, in another way."""
    kept: dict[str, str] = {}
    for name in names:
        kept.setdefault(_lock_of(name), name)
    return list(kept.values())


def _lock_of(name: str) -> str:
    """Under which name a GPU is locked: the same for its number and for its UUID."""
    return cards.one_name(name, cards.in_cuda_order())


def _cards() -> int:
    """Number of NVIDIA cards, by their device files."""
    return sum(bool(re.fullmatch(r"nvidia\d+", path.name)) for path in Path("/dev").glob("nvidia*"))


def node_name() -> str:
    """Name of this node: in a SLURM job the one that SLURM uses."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def _usable(node: str, taken: list[str]) -> tuple[str, ...]:
    """Names of the taken devices for PyTorch, or the CPU where that is allowed instead."""
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized():
        raise RuntimeError("claim() came after CUDA was started: the choice has no effect then")
    if _cpu_allowed() and not _cards():
        return ("cpu",)
    import torch

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found == len(taken):
        for index in range(found):
            _check_kernels(node, torch, index)
        return tuple(f"cuda:{index}" for index in range(found))
    if _cpu_allowed():
        return ("cpu",)
    built = torch.version.cuda
    why = (
        "this PyTorch was built without CUDA"
        if built is None
        else f"this PyTorch, built for CUDA {built}, found {found} usable device(s); "
        "is the node's driver older, or the GPU broken (run nvidia-smi there)?"
    )
    raise VoxmillError(
        f"Node {node}: the job holds GPU {','.join(taken)}, but {why} (torch {torch.__version__})."
    )


def _check_kernels(node: str, torch: Any, index: int) -> None:
    """Raise an error unless PyTorch has kernels for a GPU."""
    if torch.version.cuda is None:
        return
    version = f"{torch.__version__}, CUDA {torch.version.cuda}"
    capability = torch.cuda.get_device_capability(index)
    problem = cards.without_kernels(capability, torch.cuda.get_arch_list(), version)
    if problem:
        raise VoxmillError(f"Node {node}: {torch.cuda.get_device_name(index)} has {problem}.")


def _missing_message(node: str, gpus: int, seen: list[str]) -> str:
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    shown = "not set" if value is None else f"{value!r}"
    job = os.environ.get("SLURM_JOB_ID")
    where = f"SLURM job {job} on node {node}" if job else f"This machine, {node}"
    advice = (
        "Check the partition, `gpu` and `gpu_model` in profiles/slurm/config.yaml, and the node "
        f"with `srun -w {node} --gpus=1 nvidia-smi`; to keep jobs off it, submit with "
        f"--slurm-exclude-failed-nodes={node}."
        if job
        else "Set `device: cpu` or `device: auto` to compute without."
    )
    return (
        f"{where}: expected {gpus} GPU(s), found {len(seen)} (CUDA_VISIBLE_DEVICES is {shown}). "
        f"{advice}"
    )


def _cpu_allowed() -> bool:
    return os.environ.get(ALLOW_CPU, "") not in ("", "0")


@contextlib.contextmanager
def _slots(seen: list[str], gpus: int) -> Iterator[list[str]]:
    """Lock `gpus` of the machine's GPUs; the locks end with this process, however it ends."""
    with contextlib.ExitStack() as stack:
        while True:
            with contextlib.ExitStack() as attempt:
                taken: list[str] = []
                for name in seen:
                    if len(taken) < gpus and slots.take(_lock_of(name), attempt):
                        taken.append(name)
                if len(taken) == gpus:
                    stack.push(attempt.pop_all())
                    break
            # Two jobs that each hold some GPUs and wait for more could wait for ever.
            time.sleep(_POLL_S)
        yield taken
