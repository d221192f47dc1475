"""Processes of this machine that belong to a run: its scheduler and its jobs."""

import os
from collections.abc import Iterator
from pathlib import Path


def live_schedulers(directory: Path) -> list[int]:
    """List processes that run snakemake in a folder and are not jobs themselves."""
    found = []
    own = os.environ.get("SLURM_JOB_ID", "")
    for process, words in _inside(directory):
        try:
            variables = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        # Jobs of the local executor have `--mode`; jobs of a cluster run inside SLURM, where this
        # process may be as well.
        numbers = [v.partition(b"=")[2] for v in variables if v.startswith(b"SLURM_JOB_ID=")]
        in_job = bool(numbers) and numbers[0] != own.encode()
        if b"--mode" not in words and not in_job and _is_snakemake(words):
            found.append(int(process.name))
    return found


def local_jobs(directory: Path) -> list[int]:
    """List processes that do a job of a folder: scripts, and what starts them."""
    return [
        int(process.name)
        for process, words in _inside(directory)
        if any(b".snakemake/scripts/" in word for word in words)
        or (b"--mode" in words and _is_snakemake(words))
    ]


def _inside(directory: Path) -> Iterator[tuple[Path, list[bytes]]]:
    """Processes that work in a folder, other than this one, with the words of their commands."""
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            inside = os.path.realpath(process / "cwd") == os.path.realpath(directory)
        except OSError:
            continue
        if inside:
            yield process, words


def _is_snakemake(words: list[bytes]) -> bool:
    return any(word.rpartition(b"/")[2] == b"snakemake" for word in words[:3])
