"""The Fourier engine beside other busy processes, with several settings for waiting threads.

    python benchmarks/crowded.py

Each measurement runs in its own process, because OpenMP reads its settings once. `--rounds` repeats
all of them.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

WORKER = Path(__file__).resolve().parent / "engine_worker.py"
WAITING = {
    "GCC's default": {"GOMP_SPINCOUNT": "300000"},  # GCC's own count where nothing is set
    "voxmill's default": {"GOMP_SPINCOUNT": "10000"},
    "passive": {"OMP_WAIT_POLICY": "passive"},
}


@contextlib.contextmanager
def busy_processes(count: int):
    """Run processes that never wait while the block runs."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def seconds(task: dict, waiting: dict) -> float:
    """Median seconds of one evaluation."""
    kept = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run(
        [sys.executable, str(WORKER), json.dumps(task)],
        capture_output=True, text=True, check=True, env=kept | waiting,
    )  # fmt: skip
    return json.loads(done.stdout)["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--others", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    task = {
        "what": "inference", "runner": "fourier", "size": given.size, "depth": given.depth,
        "threads": given.threads, "repeats": 5, "enough_s": 30.0,
    }  # fmt: skip
    print("| other processes | " + " | ".join(f"{name}, s" for name in WAITING) + " |")
    print("|---" * (len(WAITING) + 1) + "|")
    for others in given.others:
        found = {name: [] for name in WAITING}
        with busy_processes(others):
            for _ in range(given.rounds):
                for name, waiting in WAITING.items():
                    found[name].append(seconds(task, waiting))
        cells = (f"{statistics.median(values):.3f}" for values in found.values())
        print(f"| {others} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
