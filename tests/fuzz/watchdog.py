"""Runs one case in a process of its own: with a limit of time and memory, and crashes are seen."""

import os
import re
import resource
import signal
import traceback
from pathlib import Path

from voxmill.runtime.errors import VoxmillError

CPU_S = 10
"""Of computation, so that a busy machine fails no case ..."""
WALL_S = 100
"""... and of waiting, which a whole case takes but a fraction of."""
MOST_BYTES = 1 << 30
"""Above what the process holds at the start."""
_LONGEST = 60_000


def outcome(operation, *arguments):
    """Run an operation; returns "done", or the message of voxmill's error.

    Raises
    ------
    AssertionError
        If it ended otherwise: another exception, more time or memory, a signal.
    """
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        said = b"failed without memory for a traceback"
        try:
            os.close(receiver)
            said = _tried(operation, arguments).encode(errors="replace")[:_LONGEST]
        finally:
            # Whatever happens, this process never goes on as a second pytest.
            os.write(sender, said)
            os._exit(0)
    os.close(sender)
    with open(receiver, "rb") as file:
        said = file.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        late = {signal.SIGALRM: f"{WALL_S} s", signal.SIGPROF: f"{CPU_S} s of computation"}
        raise AssertionError(
            f"not over after {late[number]}" if number in late else f"crash: signal {number}"
        )
    kind, _, message = said.partition(" ")
    if kind == "failed":
        raise AssertionError(message)
    return message if kind == "refused" else kind


def _tried(operation, arguments):
    limit = _data_bytes() + MOST_BYTES
    # What is allocated, not what is mapped: libraries and the stacks of threads reserve more.
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, CPU_S)
    signal.alarm(WALL_S)
    try:
        operation(*arguments)
    except VoxmillError as error:
        return f"refused {error}"
    except BaseException:
        return f"failed {traceback.format_exc()}"
    return "done"


def _data_bytes():
    text = Path("/proc/self/status").read_text()
    return int(re.search(r"VmData:\s+(\d+) kB", text)[1]) * 1024
