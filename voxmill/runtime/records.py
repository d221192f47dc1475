"""Records of jobs: when, where and on which devices they ran.

A record is a JSON object on one line of a file beside the job's log. A job appends one at its
start, one when it has its devices, and one at its end. The table of a run is made from these files.
"""

import contextlib
import json
import logging
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

RECORD_SUFFIX = ".jobs.jsonl"


def start_record(task: str, node: str, gpus: int, device: str) -> dict[str, Any]:
    """What is known about a job at its start.

    Parameters
    ----------
    task : str
        What the record calls the job, such as its output.
    node : str
        Name of the node.
    gpus : int
        GPUs that the job asked for.
    device : str
        The setting: "auto", "cpu" or "cuda".
    """
    names = {
        "job_id": "SLURM_JOB_ID",
        "array_job_id": "SLURM_ARRAY_JOB_ID",
        "array_task_id": "SLURM_ARRAY_TASK_ID",
        "cuda_visible_devices": "CUDA_VISIBLE_DEVICES",
    }
    return {
        "task": task,
        "start": now(),
        "node": node,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "gpus": gpus,
        "device": device,
        **{key: os.environ.get(variable) for key, variable in names.items()},
        **_job_facts(os.environ.get("SLURM_JOB_ID")),
    }


def _job_facts(job_id: str | None) -> dict[str, str]:
    """What SLURM says about this job; it forgets a job a few minutes after the job's end."""
    if job_id is None or shutil.which("scontrol") is None:
        return {}
    try:
        text = subprocess.run(
            ["scontrol", "--oneliner", "show", "job", job_id],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        ).stdout
    except (subprocess.SubprocessError, OSError):
        return {}
    facts = dict(re.findall(r"(\w+)=(\S*)", text))
    kept = {}
    for key, name in (
        ("submitted", "SubmitTime"),
        ("eligible", "EligibleTime"),
        ("allocated", "StartTime"),
    ):
        with contextlib.suppress(KeyError, ValueError):
            # SLURM gives local time without a zone.
            local = datetime.fromisoformat(facts[name]).astimezone()
            kept[key] = local.astimezone(UTC).isoformat(timespec="milliseconds")
    for key, name in (
        ("run", "JobName"),
        ("time_limit", "TimeLimit"),
        ("memory_per_node", "MinMemoryNode"),
        ("restarts", "Restarts"),
    ):
        if name in facts:
            kept[key] = facts[name]
    return kept


def peak_memory() -> dict[str, float]:
    """Peak memory of this process, and of its GPUs if it used any, MB."""
    peak = {"peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        most = max(torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count()))
        peak["peak_gpu_memory_mb"] = round(most / 2**20, 1)
    return peak


def now() -> str:
    """The time, UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def append(path: str | Path | None, record: dict[str, Any]) -> None:
    """Append one line with one write, so that a killed job leaves no part of a line.

    Parameters
    ----------
    path : path or None
        The file of records; None appends nothing.
    record : dict
        JSON values.
    """
    if path is None:
        return
    line = json.dumps(record, sort_keys=True) + "\n"
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)
    except OSError as error:
        # No reason to end a job that may have computed for hours.
        logger.warning("%s: no record of this job is kept: %s", path, error.strerror)


def record_path(log_path: str | Path) -> Path:
    """The file of records that belongs to a job's log.

    Examples
    --------
    >>> record_path("logs/a/predict_tile/z0000.log").as_posix()
    'logs/a/predict_tile/z0000.jobs.jsonl'
    """
    return Path(log_path).with_suffix(RECORD_SUFFIX)
