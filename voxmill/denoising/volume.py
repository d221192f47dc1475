"""Denoise one volume in memory: arrays in, arrays out."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from voxmill.config.denoising import DenoiseSettings, plain_settings
from voxmill.denoising import checkpoint
from voxmill.denoising.detail import restore_detail
from voxmill.denoising.domain import Domain, make_domain
from voxmill.denoising.fitting import Fit
from voxmill.denoising.loop import RunOptions, run
from voxmill.denoising.metrics import compare
from voxmill.denoising.placement import place_units, unit_names
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
        follow each other, and their seconds add up. Metrics are of the mean over the fits so far,
        before its detail is restored.
    reason : str
        Why the fits ended.
    best_iterations : tuple of int
        For every fit, the iteration whose average output is its result.
    domain : Domain
        Noise level, normalisation and padding.
    placement : dict of str to str
        The device of every unit of the network.
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
        One or two, from `voxmill.denoising.devices.resolve_devices`.
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
    job = _Job(scan, settings, place_units(unit_names(settings), devices, settings.cut))
    total = torch.zeros_like(job.target)
    rows: list[dict] = []
    reasons: list[str] = []
    best: list[int] = []
    for index in range(settings.fits):
        fit = Fit(job.target, settings_of_fit(settings, index), job.placement, job.domain.level)
        options = RunOptions(
            metrics=job.metrics(total, index + 1, reference, mask),
            preview=job.preview(total, index + 1, preview),
            checkpoint_path=checkpoint_path and checkpoint.path_of_fit(checkpoint_path, index),
            identity=job.identity(fit.settings),
            progress=progress,
        )
        rows += _continued(rows, run(fit, options), index)
        total = total + fit.result.cpu()
        best.append(fit.rule.best_iteration or fit.iteration)
        reasons.append(fit.reason)
        log.info("fit %d of %d: %s", index + 1, settings.fits, fit.reason)
        del fit, options  # frees the memory of this fit before the next
    return Denoised(
        volume=job.finish(total / settings.fits),
        plain=job.domain.inverse((total / settings.fits).numpy()),
        rows=rows,
        reason="; ".join(dict.fromkeys(reasons)),
        best_iterations=tuple(best),
        domain=job.domain,
        placement=job.names,
    )


class _Job:
    """The target, domain and placement that the fits of one scan share."""

    def __init__(
        self,
        scan: np.ndarray,
        settings: DenoiseSettings,
        placement: dict[str, torch.device],
    ):
        self.scan, self.settings, self.placement = scan, settings, placement
        self.names = {unit: str(device) for unit, device in placement.items()}
        self.domain = make_domain(scan, settings)
        self.target = torch.from_numpy(self.domain.forward(scan))
        self.code = source_digest("voxmill.denoising.volume")

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
        """Fingerprint that a checkpoint of this fit must have."""
        return checkpoint.fingerprint(
            scan=np.ascontiguousarray(self.scan),
            settings=plain_settings(settings),
            placement=self.names,
            code=self.code,
        )


def settings_of_fit(settings: DenoiseSettings, index: int) -> DenoiseSettings:
    """Settings of one of several fits, counted from 0: the first has the given seed."""
    return dataclasses.replace(settings, fits=1, seed=settings.seed + index * SEED_STEP)


def _continued(rows: list[dict], added: list[dict], index: int) -> list[dict]:
    """Rows of one more fit with its number; its seconds are added to those of the earlier fits."""
    before = rows[-1]["seconds"] if rows else 0.0
    return [
        {"fit": index + 1} | row | {"seconds": round(before + row["seconds"], 3)} for row in added
    ]
