"""The cost of a run: seconds, waits, GPU-seconds, tries and memory of its heavy jobs."""

import csv
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from statistics import median

from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import visible, writing
from voxmill.runtime.records import RECORD_SUFFIX

MOST_ROWS = 200
HEADER = ("task", "status", "node", "GPU", "s", "wait s", "GPU s", "retries", "MB", "GPU MB")


@dataclass(frozen=True)
class Row:
    """One task of the last run that made its output.

    Attributes
    ----------
    task : str
        The output.
    status : str
        `done`, `failed`, or `vanished` for a job that was killed before it recorded its end.
    node, devices : str
        Node of the last try, and the GPUs that it saw.
    seconds : float
        Of the last try, from start to end.
    wait_s : float
        From the time when it could have started until it had its resources, or its GPU.
    gpu_seconds : float
        GPUs held times seconds, summed over all tries.
    retries : int
        Tries before the last one.
    memory_mb, gpu_memory_mb : float
        Peak of the last try.
    job : str
        SLURM's job number, or `host:process` outside SLURM.
    """

    task: str
    status: str
    node: str
    devices: str
    seconds: float
    wait_s: float
    gpu_seconds: float
    retries: int
    memory_mb: float
    gpu_memory_mb: float
    job: str


def read(directory: Path) -> list[Row]:
    """Read the rows of all tasks whose jobs left records below a working directory's `logs`.

    Raises
    ------
    VoxmillError
        If there are no records.
    """
    paths = visible(Path(directory) / "logs", f"**/*{RECORD_SUFFIX}")
    if not paths:
        raise VoxmillError(
            f"{Path(directory) / 'logs'}: expected records of jobs (*{RECORD_SUFFIX}), found none. "
            "Run the prediction first, or name its folder with --directory."
        )
    return [row(tries) for tries in map(read_tries, paths) if tries]


def read_tries(path: Path) -> list[dict]:
    """Read one record a try, in order; the last line of each try counts."""
    tries: dict[tuple, dict] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            # The job was killed while it wrote this line.
            continue
        tries[(record["start"], record["node"], record["pid"])] = record
    return list(tries.values())


def row(tries: list[dict]) -> Row:
    """Make the row of one task from its last try and the failed tries just before it."""
    last = tries[-1]
    chain = 1
    while chain < len(tries) and tries[-chain - 1].get("status") != "done":
        chain += 1
    return Row(
        task=last["task"],
        status=last.get("status", "vanished"),
        node=last["node"],
        devices=",".join(last.get("visible", ())) or "cpu",
        seconds=_seconds(last, "start", "end"),
        wait_s=_wait_s(last),
        gpu_seconds=round(sum(_gpu_seconds(each) for each in tries[-chain:]), 2),
        retries=chain - 1,
        memory_mb=last.get("peak_memory_mb", 0.0),
        gpu_memory_mb=last.get("peak_gpu_memory_mb", 0.0),
        job=_job(last),
    )


def formatted(rows: list[Row]) -> str:
    """Format the table as text with a line of totals.

    Of more than 200 tasks those that are not done have lines of their own, the others share a line
    for each folder.
    """
    if len(rows) <= MOST_ROWS:
        return "\n".join([*_aligned(HEADER, _by_task(rows), left=4), "", summary(rows)])
    text = _aligned(("folder", "tasks", *HEADER[4:]), _by_folder(rows), left=1)
    if unfinished := [each for each in rows if each.status != "done"]:
        text += ["", *_aligned(HEADER, _by_task(unfinished[:MOST_ROWS]), left=4)]
    return "\n".join([*text, "", summary(rows)])


def _by_task(rows: list[Row]) -> list[tuple[str, ...]]:
    return [
        (
            *(each.task, each.status, each.node, each.devices, f"{each.seconds:.1f}"),
            *(f"{each.wait_s:.1f}", f"{each.gpu_seconds:.1f}", str(each.retries)),
            *(f"{each.memory_mb:.0f}", f"{each.gpu_memory_mb:.0f}"),
        )
        for each in rows
    ]


def _by_folder(rows: list[Row]) -> list[tuple[str, ...]]:
    """A line for the tasks of each folder: medians of seconds, sums of GPU-seconds, peaks."""
    folders: dict[str, list[Row]] = {}
    for each in rows:
        folders.setdefault(each.task.rpartition("/")[0], []).append(each)
    return [
        (
            *(folder, str(len(those)), f"{median(r.seconds for r in those):.1f}"),
            *(f"{median(r.wait_s for r in those):.1f}", f"{sum(r.gpu_seconds for r in those):.1f}"),
            *(str(sum(r.retries for r in those)), f"{max(r.memory_mb for r in those):.0f}"),
            f"{max(r.gpu_memory_mb for r in those):.0f}",
        )
        for folder, those in folders.items()
    ]


def _aligned(header: tuple[str, ...], lines: list[tuple[str, ...]], left: int) -> list[str]:
    """Lines of columns, of which the first ones are aligned to the left."""
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]
    return [
        "  ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [header, *lines]
    ]


def summary(rows: list[Row]) -> str:
    """Summarise all tasks in one line."""
    done = sum(each.status == "done" for each in rows)
    return (
        f"{done} of {len(rows)} done; median {median(r.seconds for r in rows):.1f} s, "
        f"median wait {median(r.wait_s for r in rows):.1f} s, "
        f"{sum(r.gpu_seconds for r in rows):.1f} GPU-seconds, "
        f"{sum(r.retries for r in rows)} retries, "
        f"peak memory {max(r.memory_mb for r in rows):.0f} MB"
    )


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """Write the rows as CSV, columns named as the fields of `Row`."""
    with writing(path) as scratch, open(scratch, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [each.name for each in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(each) for each in rows)


def _wait_s(record: dict) -> float:
    """Seconds in SLURM's queue; outside SLURM, seconds until a GPU was free."""
    if "allocated" in record and "eligible" in record:
        return max(_seconds(record, "eligible", "allocated"), 0.0)
    return _seconds(record, "start", "claimed")


def _gpu_seconds(record: dict) -> float:
    """GPUs times seconds; SLURM allocates GPUs before the job's own record starts."""
    start = "allocated" if "allocated" in record else "claimed"
    return len(record.get("visible", ())) * _seconds(record, start, "end")


def _seconds(record: dict, start: str, end: str) -> float:
    if record.get(start) is None or record.get(end) is None:
        return 0.0
    length = datetime.fromisoformat(record[end]) - datetime.fromisoformat(record[start])
    return round(length.total_seconds(), 3)


def _job(record: dict) -> str:
    if record.get("array_job_id"):
        return f"{record['array_job_id']}_{record['array_task_id']}"
    return record.get("job_id") or f"{record['host']}:{record['pid']}"
