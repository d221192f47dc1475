"""Memory that this process may still allocate; importing this module does not import torch."""

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

from voxmill.runtime.errors import VoxmillError


def free_bytes(device: str = "cpu") -> int:
    """Bytes that this process may still allocate on a device.

    On a CPU this is the least of the system's available memory, what the limits of the job's
    control groups leave, and what the limit of the address space leaves.

    Parameters
    ----------
    device : str
        As PyTorch names it: "cpu", "cuda:0".
    """
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()  # memory that torch keeps from earlier blocks
        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    free = [_meminfo("MemAvailable"), *_cgroup_free()]
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        mapped = int(Path("/proc/self/statm").read_text().split()[0])
        free.append(soft - resource.getpagesize() * mapped)
    return max(0, min(free))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, PyTorch, cuDNN, cuBLAS or cuFFT says that memory is short.

    >>> is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))
    False
    """
    text = str(error).lower()
    said = ("out of memory", "allocate memory", "not enough memory", "alloc_failed")
    return isinstance(error, MemoryError) or any(words in text for words in said)


def _meminfo(key: str) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(key + ":"):
            return 1024 * int(line.split()[1])
    raise VoxmillError(f"/proc/meminfo: expected a line {key}, found none. Voxmill needs Linux.")


def _cgroup_free(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> Iterator[int]:
    """Bytes left by each control group with a memory limit, from the job's own one upwards."""
    with contextlib.suppress(OSError):
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                names, base = ("memory.max", "memory.current"), root
            elif "memory" in controllers.split(","):
                names, base = ("memory.limit_in_bytes", "memory.usage_in_bytes"), root / "memory"
            else:
                continue
            folder = base / path.lstrip("/")
            for group in (folder, *folder.parents):
                if group == base.parent:
                    break
                with contextlib.suppress(OSError, ValueError):
                    # The system drops file pages when memory is short.
                    free = int((group / names[0]).read_text()) - int((group / names[1]).read_text())
                    yield free + _file_pages(group)


def _file_pages(group: Path) -> int:
    with contextlib.suppress(OSError):
        for line in (group / "memory.stat").read_text().splitlines():
            if line.startswith(("inactive_file ", "total_inactive_file ")):
                return int(line.split()[1])
    return 0
