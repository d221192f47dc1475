"""The CPU that this process runs on."""

import contextlib
import platform
from pathlib import Path


def cpu_flags() -> str:
    """What `-march=native` depends on: architecture, model name and instruction sets."""
    flags = ""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features", "model name")):
                flags += line
                if not line.startswith("model name"):
                    break
    return platform.machine() + flags
