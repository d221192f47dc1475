"""Run a fit to its end: history, metrics, previews, progress, checkpoints, signals."""

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from voxmill.denoising import checkpoint
from voxmill.denoising.fitting import Fit

log = logging.getLogger(__name__)

LOG_EVERY_S = 30.0
COLUMNS = (
    "fit",
    "iteration",
    "loss",
    "statistic",
    "learning_rate",
    "scale",
    "skipped",
    "seconds",
    "psnr",
    "ssim",
    "psnr_mask",
    "ssim_mask",
)


@dataclass(frozen=True)
class Watch:
    """What is done beside the fit.

    Parameters
    ----------
    metrics : callable, optional
        From the average output, a (z, y, x) tensor, to a dict of numbers for the history.
    preview : callable, optional
        Draws a picture of the average output; gets it and the number of the iteration.
    checkpoint_path : Path, optional
        Where checkpoints go; removed by the caller when the results are written.
    identity : str
        `checkpoint.fingerprint` of the fit.
    progress : bool
        Whether to show a progress bar on a terminal and lines in the log: loss, stopping
        statistic, time left.
    """

    metrics: Callable[[Tensor], dict] | None = None
    preview: Callable[[Tensor, int], None] | None = None
    checkpoint_path: Path | None = None
    identity: str = ""
    progress: bool = True


def run(fit: Fit, watch: Watch) -> list[dict]:
    """Iterate until the stopping rule, the last iteration or a signal.

    Returns
    -------
    list of dict
        One row per iteration with the keys of `COLUMNS` (metrics only where they were taken, and
        no number of the fit).

    Raises
    ------
    voxmill.denoising.checkpoint.Terminated
        After SIGTERM or SIGUSR1, when the checkpoint is written.
    VoxmillError
        If the fit diverges.
    """
    rows: list[dict] = []
    if watch.checkpoint_path is not None:
        rows = checkpoint.resume(watch.checkpoint_path, fit, watch.identity)
    start = time.monotonic() - (rows[-1]["seconds"] if rows else 0.0)
    logged = time.monotonic()
    bar = tqdm(
        total=fit.settings.iterations,
        initial=fit.iteration,
        disable=not (watch.progress and sys.stderr.isatty()),
        desc="fit",
        mininterval=0.5,
    )
    with checkpoint.termination() as received, bar:
        while not fit.reason:
            row = fit.step()
            row["seconds"] = round(time.monotonic() - start, 3)
            rows.append(row)
            _look(fit, watch, row)
            bar.update()
            text = f"loss={row['loss']:.3g}, statistic={row['statistic']:.4g}"
            bar.set_postfix_str(text, refresh=False)
            if watch.progress and time.monotonic() - logged > LOG_EVERY_S:
                logged = time.monotonic()
                log.info("%s", _line(fit, row, text))
            _checkpoint(fit, watch, rows, bool(received))
    return rows


def _line(fit: Fit, row: dict, text: str) -> str:
    """A line for the log, which has no bar."""
    total = fit.settings.iterations
    left_s = row["seconds"] / row["iteration"] * (total - row["iteration"])
    return f"iteration {row['iteration']} of at most {total}: {text}, {left_s:.0f} s left"


def _look(fit: Fit, watch: Watch, row: dict) -> None:
    number, settings = row["iteration"], fit.settings
    if watch.metrics and (number % settings.metrics_every == 0 or fit.reason):
        row.update(watch.metrics(fit.average))
    if watch.preview and settings.preview_every and number % settings.preview_every == 0:
        watch.preview(fit.average, number)


def _checkpoint(fit: Fit, watch: Watch, rows: list[dict], ending: bool) -> None:
    if watch.checkpoint_path is not None and (
        ending or fit.reason or fit.iteration % fit.settings.checkpoint_every == 0
    ):
        checkpoint.save(watch.checkpoint_path, fit, rows, watch.identity)
    if ending and not fit.reason:
        kept = f"; {watch.checkpoint_path} goes on from here" if watch.checkpoint_path else ""
        raise checkpoint.Terminated(f"ended by a signal after iteration {fit.iteration}{kept}")
