"""Measure whether wider layers learn faster: one network with 1, 2, 4 and 8 channels a layer.

    python benchmarks/training_width.py --output benchmarks/results/training_width.json

Each network trains on one microglia volume and is scored on the other (`benchmarks/real_data.py`;
the held-out volume is not used), with the settings of the shipped microglia model except width and
steps: first for an equal number of steps, then for an equal time, that of the slowest. Time is the
CPU time of the process, on which other programs have little effect. The threshold is the best one
for each network on the volume where it is scored, so the numbers only compare widths.
"""

import argparse
import dataclasses
import logging
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import real_data

from voxmill.runtime.files import write_json
from voxmill.training.trainer import Trainer

TRAINS, SCORED = "microglia_3941", "microglia_1874"
WARM_STEPS = 3


def settings_of(width: int, steps: int, settings=None):
    """Settings of a training (the shipped model's) with another width and number of steps."""
    settings = settings or real_data.SETTINGS["microglia"]
    network = {**settings.network, "width": width}
    return dataclasses.replace(settings, network=network, steps=steps, validate_every=steps)


def seconds_per_step(sources, settings, threads: int) -> float:
    """CPU time of a step, without the first ones, which also choose how to compute each layer."""
    trainer = Trainer(sources, settings, "cpu", threads)
    for _ in range(WARM_STEPS):
        trainer.step()
    begun = time.process_time()
    for _ in range(WARM_STEPS):
        trainer.step()
    return (time.process_time() - begun) / WARM_STEPS


def measure(sources, settings, threads: int, compared: str) -> dict:
    """Train and return a row: CPU seconds of all steps without validation, and the scores."""
    trainer = Trainer(sources, settings, "cpu", threads)
    begun = time.process_time()
    losses = [trainer.step() for _ in range(settings.steps)]
    seconds = time.process_time() - begun
    result = trainer.validate(seconds)
    last = losses[-max(1, len(losses) // 5) :]
    return {
        "compared": compared,
        "width": settings.network["width"],
        "depth": settings.network["depth"],
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "steps": settings.steps,
        "seconds": round(seconds, 1),
        "loss": round(sum(last) / len(last), 4),
        **{key: round(result[key], 4) for key in ("f1", "precision", "recall", "threshold")},
    }


def compare(sources, widths, steps: int, threads: int, settings=None):
    """Yield a row for each width at equal steps, then for each at equal time."""
    rows = []
    for width in widths:
        rows.append(measure(sources, settings_of(width, steps, settings), threads, "steps"))
        yield rows[-1]
    seconds = max(row["seconds"] for row in rows)
    for row in rows:
        # The slowest is measured already: a second run would be the same.
        if row["seconds"] == seconds:
            yield {**row, "compared": "time"}
            continue
        chosen = settings_of(row["width"], steps, settings)
        pace = seconds_per_step(sources, chosen, threads)
        more = settings_of(row["width"], max(1, round(seconds / pace)), settings)
        yield measure(sources, more, threads, "time")


def show(rows: list[dict]) -> str:
    """Format the rows as a Markdown table."""
    keys = ("compared", "width", "parameters", "steps", "seconds", "loss", "f1")
    lines = ["| equal | " + " | ".join(keys[1:]) + " |", "|" + "---|" * len(keys)]
    lines += ["| " + " | ".join(str(row[key]) for key in keys) + " |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--widths", nargs="+", type=int, default=(1, 2, 4, 8))
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--data", type=Path, default=real_data.DATA)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output")
    options = parser.parse_args()
    logging.getLogger("voxmill.engine").setLevel(logging.WARNING)
    scored = real_data.read_source(SCORED, options.data)
    scored = dataclasses.replace(scored, validation=scored.region)
    sources = [real_data.read_source(TRAINS, options.data), scored]
    rows = []
    for row in compare(sources, options.widths, options.steps, options.threads):
        rows.append(row)
        print(row, flush=True)
        if options.output:
            write_json(options.output, {"trains": TRAINS, "scored": SCORED, "rows": rows})
    print(show(rows))


if __name__ == "__main__":
    main()
