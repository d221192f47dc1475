"""Denoise one volume in memory: arrays in, arrays out."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from voxmill.config.denoising import HOW, DenoiseSettings, plain_settings
from voxmill.denoising import checkpoint
from voxmill.denoising.detail import restore_detail
from voxmill.denoising.devices import of_each_fit
from voxmill.denoising.domain import Domain, make_domain
from voxmill.denoising.fitting import Fit
from voxmill.denoising.loop import RunOptions, run
from voxmill.denoising.metrics import compare
from voxmill.denoising.placement import place_units, unit_names
from voxmill.denoising.precision import kernels
from voxmill.runtime.digests import source_digest

log = logging.getLogger(__name__)

# Distance between the seeds of the fits of one scan; far more than between seeds users choose.
SEED_STEP = 1_000_003


@dataclass(frozen=True)
class Denoised:
    """Result of the fits.

    Attributes
    ----------
    volume : (z, y, x) float32 array
        In the scan's units.
    plain : (z, y, x) float32 array
        The denoised volume before its detail was restored.
    rows : list of dict
        One per iteration, with keys of `voxmill.denoising.loop.COLUMNS`. The rows of several fits
        follow each other, and their seconds add up, but for those of fits at once. Metrics are of
        the mean of a fit and those done before it began, before its detail is restored.
    reason : str
        Why the fits ended.
    best_iterations : tuple of int
        For every fit, the iteration whose average output is its result.
    domain : Domain
        Noise level, normalisation and padding.
    placement : dict of str to str
        The device of every unit of the network, of the first of fits at once.
    """

    volume: np.ndarray
    plain: np.ndarray
    rows: list[dict]
    reason: str
    best_iterations: tuple[int, ...]
    domain: Domain
    placement: dict[str, str]


def denoise_volume(
    scan: np.ndarray,
    settings: DenoiseSettings,
    devices: Sequence[torch.device],
    reference: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    checkpoint_path: Path | None = None,
    preview: Callable[[np.ndarray, int], None] | None = None,
    progress: bool = True,
) -> Denoised:
    """Fit `settings.fits` Deep Image Priors to a noisy volume and average their results.

    Parameters
    ----------
    scan : (z, y, x) float array
        Noisy intensities; any axis order that the other arrays share.
    settings : DenoiseSettings
    devices : sequence of torch.device
        One or two for each of `settings.fits_at_once` fits, from
        `voxmill.denoising.devices.resolve_devices`.
    reference : (z, y, x) float array, optional
        Noise-free intensities for metrics; the fit does not use them.
    mask : (z, y, x) bool array, optional
        Voxels for which metrics are computed in addition.
    checkpoint_path : path, optional
        The checkpoint of the first fit; those of further fits lie beside it
        (`voxmill.denoising.checkpoint.path_of_fit`). A fit resumes from its own checkpoint.
    preview : callable, optional
        Gets the denoised volume so far and the iteration, every `preview_every` iterations.
    progress : bool
        Whether to show progress on a terminal and in the log.

    Raises
    ------
    VoxmillError
        If the settings do not fit the scan or the fit diverges.
    voxmill.denoising.checkpoint.Terminated
        After SIGTERM or SIGUSR1, once the checkpoint is written.
    """
    job = _Job(scan, settings, devices)
    total = torch.zeros_like(job.target)
    rows: list[dict] = []
    reasons: list[str] = []
    best: list[int] = []
    for start in range(0, settings.fits, settings.fits_at_once):
        numbers = range(start, min(start + settings.fits_at_once, settings.fits))
        fits = [job.fit(index, job.placements[index - start]) for index in numbers]
        options = [
            RunOptions(
                metrics=job.metrics(total, start + 1, reference, mask),
                # One bar and one picture (whose library knows no threads).
                preview=job.preview(total, start + 1, preview) if index == start else None,
                checkpoint_path=checkpoint_path and checkpoint.path_of_fit(checkpoint_path, index),
                identity=job.identity(fit.settings),
                progress=progress and index == start,
            )
            for index, fit in zip(numbers, fits, strict=True)
        ]
        before_s = max((row["seconds"] for row in rows), default=0.0)
        for index, fit, added in zip(numbers, fits, run_at_once(fits, options), strict=True):
            rows += _continued(before_s, added, index)
            total = total + fit.result.cpu()
            best.append(fit.rule.best_iteration or fit.iteration)
            reasons.append(fit.reason)
            log.info("fit %d of %d: %s", index + 1, settings.fits, fit.reason)
        del fit, fits, options  # frees the memory of these fits before the next
    return Denoised(
        volume=job.finish(total / settings.fits),
        plain=job.domain.inverse((total / settings.fits).numpy()),
        rows=rows,
        reason="; ".join(dict.fromkeys(reasons)),
        best_iterations=tuple(best),
        domain=job.domain,
        placement=job.names,
    )


def run_at_once(fits: Sequence[Fit], options: Sequence[RunOptions]) -> list[list[dict]]:
    """Run fits at the same time, each in a thread: PyTorch computes outside of Python's lock.

    Parameters
    ----------
    fits : sequence of Fit
        On different devices.
    options : sequence of RunOptions

    Returns
    -------
    list of list of dict
        The rows of each fit, from `voxmill.denoising.loop.run`.

    Raises
    ------
    VoxmillError, voxmill.denoising.checkpoint.Terminated
        As `run`. After an error of one fit, or a signal, the others end with a checkpoint.
    """
    if len(fits) == 1:
        return [run(fits[0], options[0])]
    chosen = kernels(fits[0].settings.deterministic)
    with checkpoint.termination() as received, chosen, ThreadPoolExecutor(len(fits)) as pool:
        started = [
            pool.submit(run, fit, dataclasses.replace(each, received=received))
            for fit, each in zip(fits, options, strict=True)
        ]
        wait(started, return_when=FIRST_EXCEPTION)
        failed = [done for done in started if done.done() and done.exception()]
        if failed:
            received.append(0)  # the others write their checkpoints and end
    for done in failed:
        done.result()  # raises the error that came first
    return [done.result() for done in started]


class _Job:
    """The target, domain and placements that the fits of one scan share."""

    def __init__(
        self, scan: np.ndarray, settings: DenoiseSettings, devices: Sequence[torch.device]
    ):
        self.scan, self.settings = scan, settings
        units = unit_names(settings)
        self.placements = [
            place_units(units, each, settings.cut)
            for each in of_each_fit(devices, settings.fits_at_once)
        ]
        self.names = {unit: str(device) for unit, device in self.placements[0].items()}
        self.domain = make_domain(scan, settings)
        self.target = torch.from_numpy(self.domain.forward(scan))
        self.code = source_digest("voxmill.denoising.volume")

    def fit(self, index: int, placement: dict[str, torch.device]) -> Fit:
        """Begin one of the fits, counted from 0."""
        settings = settings_of_fit(self.settings, index)
        return Fit(self.target, settings, placement, self.domain.level)

    def finish(self, mean: Tensor) -> np.ndarray:
        """Intensities of the mean of the fits, with its detail restored."""
        # This runs on the CPU, since it needs more memory than GPUs have to spare.
        if self.settings.detail_block_vox:
            block = self.settings.detail_block_vox
            mean = restore_detail(self.target, mean, self.domain.level, block)
        return self.domain.inverse(mean.numpy())

    def so_far(self, total: Tensor, count: int, average: Tensor) -> np.ndarray:
        """Intensities of the mean of the fits so far, before detail is restored."""
        return self.domain.inverse(((total + average.cpu()) / count).numpy())

    def metrics(
        self, total: Tensor, count: int, reference: np.ndarray | None, mask: np.ndarray | None
    ) -> Callable[[Tensor], dict] | None:
        """Return the function that computes metrics for the history; None without reference."""
        if reference is None:
            return None
        return lambda average: compare(self.so_far(total, count, average), reference, mask)

    def preview(
        self, total: Tensor, count: int, draw: Callable[[np.ndarray, int], None] | None
    ) -> Callable[[Tensor, int], None] | None:
        """Return the function that draws a running fit; None without `draw`."""
        if draw is None:
            return None
        return lambda average, number: draw(self.so_far(total, count, average), number)

    def identity(self, settings: DenoiseSettings) -> str:
        """Fingerprint that a checkpoint of this fit must have; on any devices, cut anywhere."""
        plain = plain_settings(settings)
        return checkpoint.fingerprint(
            scan=np.ascontiguousarray(self.scan),
            settings={key: value for key, value in plain.items() if key not in HOW},
            code=self.code,
        )


def settings_of_fit(settings: DenoiseSettings, index: int) -> DenoiseSettings:
    """Settings of one of several fits, counted from 0: the first has the given seed."""
    return dataclasses.replace(
        settings, fits=1, fits_at_once=1, seed=settings.seed + index * SEED_STEP
    )


def _continued(before_s: float, added: list[dict], index: int) -> list[dict]:
    """Rows of one more fit with its number; the seconds before it began are added to its own."""
    return [
        {"fit": index + 1} | row | {"seconds": round(before_s + row["seconds"], 3)} for row in added
    ]
