"""Denoise one volume in memory."""

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
from voxmill.denoising.devices import place_units
from voxmill.denoising.domain import Domain, make_domain
from voxmill.denoising.fitting import Fit
from voxmill.denoising.loop import Watch, run
from voxmill.denoising.metrics import compare
from voxmill.networks.skip3d import Skip3D
from voxmill.runtime.digests import source_digest

log = logging.getLogger(__name__)

# Between the seeds of the fits of one scan: farther than seeds that a user counts up.
SEED_STEP = 1_000_003


@dataclass(frozen=True)
class Denoised:
    """What the fits gave.

    Attributes
    ----------
    volume : (z, y, x) float32 array
        In the scan's units.
    plain : (z, y, x) float32 array
        The same before its detail was restored.
    rows : list of dict
        One per iteration, keys `voxmill.denoising.loop.COLUMNS`; several fits one after the other,
        the seconds running on, the metrics those of the mean over the fits so far, before its
        detail is restored.
    reason : str
        Why the fits ended.
    best_iterations : tuple of int
        For every fit the iteration whose average output is its result.
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
    """Fit Deep Image Priors to a noisy volume, one after the other, and average their results.

    Parameters
    ----------
    scan : (z, y, x) float array
        Noisy intensities; any axis order, as long as the others have the same.
    settings : DenoiseSettings
    devices : one or two torch devices
        From `voxmill.denoising.devices.resolve_devices`.
    reference : (z, y, x) float array, optional
        Noise-free intensities, for metrics along the way; never looked at by the fit.
    mask : (z, y, x) bool array, optional
        Where metrics are also taken.
    checkpoint_path : path, optional
        Where to write checkpoints (those of further fits beside it,
        `voxmill.denoising.checkpoint.path_of_fit`), and to go on from if one of the same fit is
        there.
    preview : callable, optional
        Gets the denoised volume so far and the iteration, every `preview_every` iterations.
    progress : bool

    Raises
    ------
    VoxmillError
        If the settings do not fit the scan or the fit diverges.
    voxmill.denoising.checkpoint.Terminated
        After SIGTERM, with the checkpoint written.
    """
    job = _Job(scan, settings, place_units(unit_names(settings), devices, settings.cut))
    total = torch.zeros_like(job.target)
    rows: list[dict] = []
    reasons, best = [], []
    for index in range(settings.fits):
        fit = Fit(job.target, settings_of_fit(settings, index), job.placement, job.domain.level)
        watch = Watch(
            metrics=job.metrics(total, index + 1, reference, mask),
            preview=job.preview(total, index + 1, preview),
            checkpoint_path=checkpoint_path and checkpoint.path_of_fit(checkpoint_path, index),
            identity=job.identity(fit.settings),
            progress=progress,
        )
        rows += _continued(rows, run(fit, watch), index)
        total = total + fit.result.cpu()
        best.append(fit.rule.best_iteration or fit.iteration)
        reasons.append(fit.reason)
        log.info("fit %d of %d: %s", index + 1, settings.fits, fit.reason)
        del fit, watch  # one fit's memory at a time
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
    """What the fits of one scan share."""

    def __init__(self, scan: np.ndarray, settings: DenoiseSettings, placement: dict):
        self.scan, self.settings, self.placement = scan, settings, placement
        self.names = {unit: str(device) for unit, device in placement.items()}
        self.domain = make_domain(scan, settings)
        self.target = torch.from_numpy(self.domain.forward(scan))
        self.code = source_digest("voxmill.denoising.volume")

    def finish(self, mean: Tensor) -> np.ndarray:
        """Intensities from the mean of the fits, its detail restored (on the CPU: memory)."""
        if self.settings.detail_block_vox:
            block = self.settings.detail_block_vox
            mean = restore_detail(self.target, mean, self.domain.level, block)
        return self.domain.inverse(mean.numpy())

    def so_far(self, total: Tensor, count: int, average: Tensor) -> np.ndarray:
        """Intensities from the fits until now, their detail not yet restored."""
        return self.domain.inverse(((total + average.cpu()) / count).numpy())

    def metrics(self, total: Tensor, count: int, reference, mask):
        """For the history."""
        if reference is None:
            return None
        return lambda average: compare(self.so_far(total, count, average), reference, mask)

    def preview(self, total: Tensor, count: int, draw):
        """For the picture of a fit under way."""
        return draw and (lambda average, n: draw(self.so_far(total, count, average), n))

    def identity(self, settings: DenoiseSettings) -> str:
        """What a checkpoint must agree with."""
        return checkpoint.fingerprint(
            scan=np.ascontiguousarray(self.scan),
            settings=plain_settings(settings),
            placement=self.names,
            code=self.code,
        )


def settings_of_fit(settings: DenoiseSettings, index: int) -> DenoiseSettings:
    """Settings of one of several fits, counted from 0: its own seed, the first one the given."""
    return dataclasses.replace(settings, fits=1, seed=settings.seed + index * SEED_STEP)


def _continued(rows: list[dict], added: list[dict], index: int) -> list[dict]:
    """The rows of one more fit, numbered, its seconds after those of the others."""
    before = rows[-1]["seconds"] if rows else 0.0
    return [
        {"fit": index + 1} | row | {"seconds": round(before + row["seconds"], 3)} for row in added
    ]


def unit_names(settings: DenoiseSettings) -> list[str]:
    """Units of the network in the order in which they run; nothing is allocated."""
    with torch.device("meta"):
        return list(Skip3D(settings.network).units)
