"""Whole training steps and predictions: this checkout against another, and with its normalisations.

    git worktree add ../before f46e752
    python benchmarks/whole_steps.py --against ../before

A step draws a patch of 96^3 from a phantom, normalises, augments it, and updates the network of the
microglia model; a prediction normalises and predicts a box of 96^3. Both are measured in processes
of their own, with percentiles of the whole volume (`global`) and, in this checkout, with local
normalisation and all that the augmentation knows (`local`). Rounds alternate, and the least CPU
seconds of one thread count, so that other work on the machine matters little.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
KINDS = {
    "global": {},
    "local": {
        "normalisation": {"kind": "local", "contrast": "cells"},
        "augmentation": {"gradient": 0.3, "layer": 0.3, "seam": 0.2},
    },
}


def measure(checkout: str, kind: str, steps: int, edge: int) -> dict:
    """CPU seconds of a step and of a prediction with a checkout's code."""
    sys.path[:0] = [checkout, str(Path(checkout) / "benchmarks")]
    from phantom_model import phantom_source, varied

    from voxmill.config.training import TrainingSettings
    from voxmill.geometry import Box
    from voxmill.training.trainer import Trainer
    from voxmill.training.validation import predict_box

    settings = TrainingSettings.from_dict(
        {
            "cell_diameter_um": 12.0,
            "network": {"depth": 12, "width": 4, "dilations": [1, 2, 3, 4]},
            "patch_vox": [edge] * 3,
            "device": "cpu",
            **KINDS[kind],
        }
    )
    source = phantom_source(varied(100, shape_vox=(edge, edge + 16, edge + 16)), held=False)
    held = phantom_source(varied(200, shape_vox=(32, 64, 64)), held=True)
    trainer = Trainer([source, held], settings, "cpu", 1)
    box = Box.from_shape((edge,) * 3)
    arguments = (trainer.network, source, box, settings.normalisation, "cpu", 1)
    found = {"step": _least(trainer.step, steps)}
    found["prediction"] = _least(lambda: predict_box(*arguments), steps)
    return found


def _least(work, times: int) -> float:
    seconds = []
    work()
    for _ in range(times):
        begun = time.process_time()
        work()
        seconds.append(time.process_time() - begun)
    return min(seconds)


def run(checkout: Path, kind: str, options) -> dict:
    """Measure in a process whose library is the checkout's."""
    task = [str(checkout), kind, options.steps, options.edge]
    done = subprocess.run(
        [sys.executable, __file__, "--task", json.dumps(task)],
        capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    found: dict = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--against", type=Path, help="another checkout of the repository")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="in each round")
    parser.add_argument("--edge", type=int, default=96)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        print(json.dumps(measure(*json.loads(options.task))))
        return
    subjects = {f"this checkout, {kind}": (HERE, kind) for kind in KINDS}
    if options.against:
        subjects = {"other checkout, global": (options.against.resolve(), "global")} | subjects
    least: dict[str, dict[str, float]] = {}
    for _ in range(options.rounds):
        for name, (checkout, kind) in subjects.items():
            found = run(checkout, kind, options)
            before = least.setdefault(name, found)
            least[name] = {key: min(found[key], before[key]) for key in found}
    first = next(iter(least.values()))
    print("| code | step, CPU s | ratio | prediction, CPU s | ratio |\n|---|---|---|---|---|")
    for name, found in least.items():
        cells = (f"{found[key]:.3f} | {found[key] / first[key]:.3f}" for key in found)
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
