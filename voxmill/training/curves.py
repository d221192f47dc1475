"""The course of a training as a table and as a figure."""

import math
from pathlib import Path

from voxmill.runtime.files import write_text

COLUMNS = ("step", "loss", "learning_rate", "f1", "precision", "recall", "threshold", "seconds")


def write_curves(csv_path: str | Path, png_path: str | Path, history: list[dict]) -> None:
    """Write the validations of a training as CSV and as PNG.

    Parameters
    ----------
    csv_path, png_path : path
    history : list of dict
        See `voxmill.training.loop.TrainingResult`.
    """
    from voxmill.runtime.figures import plt, save_figure

    lines = [",".join(COLUMNS)]
    # Before the first step there is no loss.
    known = [{k: v for k, v in row.items() if v is not None} for row in history]
    lines += [",".join(f"{row[k]:.6g}" if k in row else "" for k in COLUMNS) for row in known]
    write_text(csv_path, "\n".join(lines) + "\n")
    steps = [row["step"] for row in history]
    figure = plt.figure(figsize=(7, 5), layout="constrained")
    loss, score = figure.subplots(2, sharex=True)
    loss.plot(steps, [row.get("loss", math.nan) for row in known], ".-", color="tab:gray")
    loss.set_yscale("log")
    loss.set_ylabel("training loss")
    for key, colour in (("f1", "tab:blue"), ("precision", "tab:green"), ("recall", "tab:orange")):
        score.plot(steps, [row[key] for row in history], ".-", color=colour, label=key)
    score.set_ylim(0, 1)
    score.set_ylabel("validation")
    score.set_xlabel("step")
    score.legend(loc="lower right")
    score.grid(alpha=0.3)
    save_figure(figure, png_path, dpi=130)
