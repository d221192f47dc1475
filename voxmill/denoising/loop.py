"""Run a fit to its end, with history, metrics, previews, progress, checkpoints and signals."""

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
class RunOptions:
    """What `run` does besides the iterations.

    Parameters
    ----------
    metrics : callable, optional
        Gets the average output, a (z, y, x) tensor; returns a dict of numbers for the history.
    preview : callable, optional
        Gets the average output and the number of the iteration; draws a picture.
    checkpoint_path : Path, optional
        The file of the checkpoint; the caller removes it when the results are written.
    identity : str
        `checkpoint.fingerprint` of the fit.
    progress : bool
        Whether to show loss, stopping statistic and time left: a progress bar on a terminal, and
        lines in the log.
    received : list of int, optional
        Where the caller collects signals (`checkpoint.termination`) for a fit in another thread;
        the fit ends once it holds one.
    """

    metrics: Callable[[Tensor], dict] | None = None
    preview: Callable[[Tensor, int], None] | None = None
    checkpoint_path: Path | None = None
    identity: str = ""
    progress: bool = True
    received: list[int] | None = None


def run(fit: Fit, options: RunOptions) -> list[dict]:
    """Iterate until the stopping rule or a signal ends the fit, or its last iteration is done.

    Returns
    -------
    list of dict
        One row per iteration with keys of `COLUMNS`: no `fit`, and metrics only where they were
        computed.

    Raises
    ------
    voxmill.denoising.checkpoint.Terminated
        After SIGTERM or SIGUSR1, once the checkpoint is written.
    VoxmillError
        If the fit diverges.
    """
    rows: list[dict] = []
    if options.checkpoint_path is not None:
        rows = checkpoint.resume(options.checkpoint_path, fit, options.identity)
    start = time.monotonic() - (rows[-1]["seconds"] if rows else 0.0)
    logged = time.monotonic()
    bar = tqdm(
        total=fit.settings.iterations,
        initial=fit.iteration,
        disable=not (options.progress and sys.stderr.isatty()),
        desc="fit",
        mininterval=0.5,
    )
    with checkpoint.termination(options.received) as received, bar:
        while not fit.reason:
            row = fit.step()
            row["seconds"] = round(time.monotonic() - start, 3)
            rows.append(row)
            _evaluate(fit, options, row)
            bar.update()
            text = f"loss={row['loss']:.3g}, statistic={row['statistic']:.4g}"
            bar.set_postfix_str(text, refresh=False)
            if options.progress and time.monotonic() - logged > LOG_EVERY_S:
                logged = time.monotonic()
                log.info("%s", _progress_line(fit, row, text))
            _checkpoint(fit, options, rows, bool(received))
    return rows


def _progress_line(fit: Fit, row: dict, text: str) -> str:
    """Format the progress for the log, which has no bar."""
    total = fit.settings.iterations
    left_s = row["seconds"] / row["iteration"] * (total - row["iteration"])
    return f"iteration {row['iteration']} of at most {total}: {text}, {left_s:.0f} s left"


def _evaluate(fit: Fit, options: RunOptions, row: dict) -> None:
    """Add metrics to a row and draw the preview, in the iterations that are due."""
    number, settings = row["iteration"], fit.settings
    if options.metrics and (number % settings.metrics_every == 0 or fit.reason):
        row.update(options.metrics(fit.average))
    if options.preview and settings.preview_every and number % settings.preview_every == 0:
        options.preview(fit.average, number)


def _checkpoint(fit: Fit, options: RunOptions, rows: list[dict], ending: bool) -> None:
    if options.checkpoint_path is not None and (
        ending or fit.reason or fit.iteration % fit.settings.checkpoint_every == 0
    ):
        checkpoint.save(options.checkpoint_path, fit, rows, options.identity)
    if ending and not fit.reason:
        kept = f"; the next run continues from {path}" if (path := options.checkpoint_path) else ""
        raise checkpoint.Terminated(f"ended by a signal after iteration {fit.iteration}{kept}")
