"""What surrounds the work of every job: log, versions, seconds, and errors without a traceback."""

import contextlib
import functools
import importlib.metadata
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, overload

from tqdm import tqdm

from voxmill import __version__
from voxmill.runtime import receipts
from voxmill.runtime.errors import VoxmillError

logger = logging.getLogger("voxmill")

PACKAGES = ("numpy", "tifffile", "nibabel", "scipy", "scikit-image", "torch")
LOG_EVERY_S = 10.0

Item = TypeVar("Item")
Given = TypeVar("Given")
Result = TypeVar("Result")
Job = Callable[..., None]
Whole = Callable[[dict[str, Any]], bool]


@overload
def job(function: Job, *, outputs: Sequence[str] = (), whole: Whole | None = None) -> Job: ...
@overload
def job(*, outputs: Sequence[str] = (), whole: Whole | None = None) -> Callable[[Job], Job]: ...
def job(
    function: Job | None = None, *, outputs: Sequence[str] = (), whole: Whole | None = None
) -> Any:
    """Make a job of a function of files: it then takes `log_path` too, and keywords alone.

    The log (a file, and standard error) holds the versions at the start, all messages of the
    library, and the seconds and the peak memory at the end. A `VoxmillError` is printed as one
    message without a traceback and ends the process with status 1. Inputs that have a receipt
    (`voxmill.runtime.receipts`) are checked against it.

    Parameters
    ----------
    outputs : sequence of str
        Names of the arguments that are output files. With them the job takes `code` too, a digest
        of its code: it then leaves receipts, and does nothing where its outputs are whole and were
        made of the same inputs, settings and code.
    whole : callable, optional
        Gets the job's arguments once all outputs are whole, and says whether what they list is.
    """
    if function is None:
        return functools.partial(_job, outputs=tuple(outputs), whole=whole)
    return _job(function, tuple(outputs), whole)


def _job(function: Job, outputs: tuple[str, ...], whole: Whole | None) -> Job:
    name = function.__name__

    @functools.wraps(function)
    def run(*, log_path: str | Path | None = None, **keywords: Any) -> None:
        with _logging_to(log_path):
            _log_start(name)
            start = time.perf_counter()
            try:
                _run_once(function, keywords, outputs, whole)
            except VoxmillError as error:
                logger.error("%s", error)
                raise SystemExit(1) from None
            except SystemExit as end:  # a planned end, such as a checkpoint after SIGTERM
                logger.warning("%s: %s", name, end)
                raise
            except BaseException:
                logger.exception("%s failed", name)
                raise
            seconds = time.perf_counter() - start
            logger.info("%s done in %.2f s, %s", name, seconds, _peak_memory())

    return run


def _run_once(
    function: Job, keywords: dict[str, Any], outputs: tuple[str, ...], whole: Whole | None
) -> None:
    """Run a job, unless its outputs are there and would be the same."""
    code = keywords.pop("code", None) if outputs else None
    for path in receipts.input_files(keywords, outputs):
        receipts.check_file(path)
    if code is None:
        function(**keywords)
        return
    paths = [keywords[name] for name in outputs]
    identity = receipts.identity_of(function.__name__, code, keywords, outputs)
    if receipts.are_kept(paths, identity) and (whole is None or whole(keywords)):
        logger.info("kept, whole and made of the same: %s", ", ".join(map(str, paths)))
        return
    receipts.remove_receipts(paths)
    function(**keywords)
    receipts.write_receipts(paths, function.__name__, identity)


def progress(items: Iterable[Item], total: int, unit: str, what: str) -> Iterator[Item]:
    """Yield `items`, with a bar on a terminal and a line in the log every few seconds.

    Parameters
    ----------
    items : iterable
    total : int
        How many there are.
    unit, what : str
        What one item is ("plane"), and what is done with it ("stitching").
    """
    start = last = time.perf_counter()
    bar = tqdm(items, total=total, unit=unit, desc=what, disable=not sys.stderr.isatty())
    for done, item in enumerate(bar, start=1):
        yield item
        now = time.perf_counter()
        if now - last >= LOG_EVERY_S:
            last = now
            left_s = (now - start) / done * (total - done)
            logger.info("%s: %d of %d %ss, about %.0f s left", what, done, total, unit, left_s)


def overlapped(
    items: Sequence[Item],
    read: Callable[[Item], Given],
    compute: Callable[[Item, Given], Result],
    write: Callable[[Item, Result], object],
) -> None:
    """Process items in order: one is computed while the next is read and the last one is written.

    At most two results of `read` and two of `compute` are in memory at a time.

    Parameters
    ----------
    items : sequence
    read : function of an item
    compute : function of an item and the result of `read`; runs in the calling thread
    write : function of an item and the result of `compute`

    Raises
    ------
    Exception
        The first one of any of the three functions; later items are not processed.
    """
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        ahead = [reader.submit(read, item) for item in items[:1]]
        behind: list[Future[object]] = []
        for index, item in enumerate(items):
            given = ahead.pop().result()
            ahead += [reader.submit(read, item) for item in items[index + 1 : index + 2]]
            result = compute(item, given)
            if behind:
                behind.pop().result()
            behind = [writer.submit(write, item, result)]
        if behind:
            behind.pop().result()


def log_rate(what: str, voxels: int, seconds: float) -> None:
    """Log how fast voxels were processed."""
    rate = voxels / max(seconds, 1e-9) / 1e6
    logger.info("%s: %d voxels in %.2f s, %.3f Mvoxel/s", what, voxels, seconds, rate)


class _LogFile(logging.FileHandler):
    """A log on a disk that may be full: the message is on standard error too."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


@contextlib.contextmanager
def _logging_to(log_path: str | Path | None) -> Iterator[None]:
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if log_path:
        try:
            Path(log_path).parent.mkdir(parents=True, exist_ok=True)
            handlers.append(_LogFile(log_path, mode="w"))
        except OSError as error:
            print(f"{log_path}: no log is written ({error.strerror})", file=sys.stderr)
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
    # A terminal and a cluster's own log get the warnings alone.
    handlers[0].setLevel(logging.WARNING)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        for handler in handlers:
            logger.removeHandler(handler)
            with contextlib.suppress(OSError):
                handler.close()


def _log_start(name: str) -> None:
    versions = ", ".join(
        f"{package} {importlib.metadata.version(package)}"
        for package in PACKAGES
        if _installed(package)
    )
    logger.info("%s: voxmill %s, Python %s", name, __version__, platform.python_version())
    logger.info(
        "on %s (%s), process %d; %s", platform.node(), platform.machine(), os.getpid(), versions
    )


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _peak_memory() -> str:
    import resource

    # Kilobytes on Linux.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"peak memory {peak / 1024:.0f} MiB"
