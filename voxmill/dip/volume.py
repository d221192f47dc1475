"""Denoise one volume in memory."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from voxmill.dip import checkpoint
from voxmill.dip.devices import place_units
from voxmill.dip.domain import Domain, make_domain
from voxmill.dip.fitting import Fit
from voxmill.dip.loop import Watch, run
from voxmill.dip.metrics import compare
from voxmill.dip.settings import DenoiseSettings, as_plain
from voxmill.networks.skip3d import Skip3D
from voxmill.provenance import source_digest


@dataclass(frozen=True)
class Denoised:
    """What a fit gave.

    Attributes
    ----------
    volume : (z, y, x) float32 array
        In the scan's units.
    rows : list of dict
        One per iteration, keys `voxmill.dip.loop.COLUMNS`.
    reason : str
        Why the fit ended.
    best_iteration : int
        The iteration whose average output is the result.
    domain : Domain
        Noise level, normalisation and padding.
    placement : dict of str to str
        The device of every unit of the network.
    seconds : float
        Of this process; the rows hold those of the whole fit.
    """

    volume: np.ndarray
    rows: list[dict]
    reason: str
    best_iteration: int
    domain: Domain
    placement: dict[str, str]
    seconds: float


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
    """Fit a Deep Image Prior to a noisy volume.

    Parameters
    ----------
    scan : (z, y, x) float array
        Noisy intensities; any axis order, as long as the others have the same.
    settings : DenoiseSettings
    devices : one or two torch devices
        From `voxmill.dip.devices.resolve_devices`.
    reference : (z, y, x) float array, optional
        Noise-free intensities, for metrics along the way; never looked at by the fit.
    mask : (z, y, x) bool array, optional
        Where metrics are also taken.
    checkpoint_path : path, optional
        Where to write checkpoints, and to go on from if one of the same fit is there.
    preview : callable, optional
        Gets the denoised volume so far and the iteration, every `preview_every` iterations.
    progress : bool

    Raises
    ------
    VoxmillError
        If the settings do not fit the scan or the fit diverges.
    voxmill.dip.checkpoint.Terminated
        After SIGTERM, with the checkpoint written.
    """
    start = time.monotonic()
    domain = make_domain(scan, settings)
    target = torch.from_numpy(domain.forward(scan))
    placement = place_units(unit_names(settings), devices, settings.cut)
    fit = Fit(target, settings, placement, domain.level)

    def intensities(average: Tensor) -> np.ndarray:
        return domain.inverse(average.cpu().numpy())

    def metrics(average: Tensor) -> dict:
        return compare(intensities(average), reference, mask)

    names = {unit: str(device) for unit, device in placement.items()}
    watch = Watch(
        metrics=metrics if reference is not None else None,
        preview=(lambda a, n: preview(intensities(a), n)) if preview else None,
        checkpoint_path=checkpoint_path,
        identity=checkpoint.fingerprint(
            scan=np.ascontiguousarray(scan),
            settings=as_plain(settings),
            placement=names,
            code=source_digest("voxmill.dip.volume"),
        ),
        progress=progress,
    )
    rows = run(fit, watch)
    return Denoised(
        volume=intensities(fit.result),
        rows=rows,
        reason=fit.reason,
        best_iteration=fit.rule.best_iteration or fit.iteration,
        domain=domain,
        placement=names,
        seconds=time.monotonic() - start,
    )


def unit_names(settings: DenoiseSettings) -> list[str]:
    """Units of the network in the order in which they run; nothing is allocated."""
    with torch.device("meta"):
        return list(Skip3D(settings.network).units)
