"""Runs one case in a process of its own: with a limit of time and memory, and crashes are seen."""

import multiprocessing
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


# Children of a process that has imported all and computed nothing: the threads of a library that
# this process has used forbid a fork of it (tensorstore aborts).
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.fuzz.subjects"])


def outcome(operation, *arguments):
    """Run an operation; returns "done", or the message of voxmill's error.

    Raises
    ------
    AssertionError
        If it ended otherwise: another exception, more time or memory, a signal.
    """
    receiver, sender = _SERVER.Pipe(duplex=False)
    child = _SERVER.Process(target=_report, args=(sender, operation, arguments))
    child.start()
    sender.close()
    with receiver:
        try:
            kind, message = receiver.recv()
        except EOFError:
            kind, message = "failed", "no word"
    child.join()
    if child.exitcode < 0:
        number = -child.exitcode
        late = {signal.SIGALRM: f"{WALL_S} s", signal.SIGPROF: f"{CPU_S} s of computation"}
        raise AssertionError(
            f"not over after {late[number]}" if number in late else f"crash: signal {number}"
        )
    if kind == "failed":
        raise AssertionError(message)
    return message if kind == "refused" else kind


def _report(sender, operation, arguments):
    said = "failed", "without memory for a traceback"
    try:
        said = _tried(operation, arguments)
    finally:
        sender.send(said)


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
        return "refused", str(error)
    except BaseException:
        return "failed", traceback.format_exc()
    return "done", ""


def _data_bytes():
    text = Path("/proc/self/status").read_text()
    return int(re.search(r"VmData:\s+(\d+) kB", text)[1]) * 1024
