"""The job that denoises one scan: NIfTI in; NIfTI, record and pictures out."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from voxmill.config.denoising import DenoiseSettings
from voxmill.denoising import figures
from voxmill.denoising.checkpoint import path_of_fit
from voxmill.denoising.devices import held_devices, of_each_fit, resolve_precision
from voxmill.denoising.domain import padding
from voxmill.denoising.memory import MemoryPlan, check_memory, out_of_memory_told, plan_memory
from voxmill.denoising.metrics import compare
from voxmill.denoising.nifti import Scan, read_like, read_scan, write_like
from voxmill.denoising.record import write_history, write_record
from voxmill.denoising.volume import Denoised, denoise_volume
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import sha256
from voxmill.runtime.finished import finish
from voxmill.runtime.jobs import job
from voxmill.volumes.sources import check_files

log = logging.getLogger(__name__)


@job(outputs=("output_path", "record_path", "history_path", "planes_path", "curves_path"))
def denoise_scan(
    *,
    scan_path: str,
    output_path: str,
    record_path: str,
    history_path: str,
    planes_path: str,
    curves_path: str,
    checkpoint_path: str,
    settings: dict,
    devices: list[str],
    volume: int | None = None,
    fingerprints: list[str] | None = None,
    reference_path: str | None = None,
    mask_path: str | None = None,
    threads: int | None = None,
    job_record_path: str | None = None,
) -> None:
    """Fit a Deep Image Prior to one scan and write the result.

    Parameters
    ----------
    scan_path : path
        NIfTI, 3D or 4D.
    output_path : path
        The denoised scan, with the geometry, header and data type of the input.
    record_path, history_path : path
        JSON record and CSV of the iterations.
    planes_path, curves_path : path
        PNG figures.
    checkpoint_path : path
        Checkpoint of the running fit; at the end it gets the name of a finished one
        (`voxmill.runtime.finished`). Previews are written beside it.
    settings : dict
        Plain settings of `DenoiseSettings`.
    devices : list of str
        As `voxmill.denoising.devices.resolve_devices` takes them.
    volume : int, optional
        Volume of a 4D file, from 0.
    fingerprints : list of str, optional
        Of the user's files when the run was planned; empty for a scan that a rule makes.
    reference_path, mask_path : path, optional
        Noise-free image and brain mask on the same grid, for metrics.
    threads : int, optional
        CPU threads.
    job_record_path : path, optional
        Where the job records when and where it ran, and on which GPUs.

    Raises
    ------
    VoxmillError
        If a file is not the planned one, the input, the settings and the devices do not fit
        together (before the fit), or if the fit diverges.
    """
    chosen = DenoiseSettings.from_dict(settings)
    if threads:
        torch.set_num_threads(threads)
    held = held_devices(
        devices, chosen.precision, job_record_path, str(output_path), chosen.fits_at_once
    )
    with held as found:
        precision = resolve_precision(chosen.precision, found)
        chosen = dataclasses.replace(chosen, precision=precision)
        rician = chosen.noise != "gaussian"
        scan = read_scan(scan_path, volume, rician=rician, fill_nan=chosen.fill_nan)
        reference, mask = _read_references(scan, reference_path, mask_path, chosen.fill_nan)
        identity = _identity(scan)
        check_files((scan_path, reference_path, mask_path), fingerprints or None)
        chosen, plan = _plan(scan, chosen, found)
        names = tuple(map(str, found))
        checkpoint = Path(checkpoint_path)
        with out_of_memory_told(plan):
            denoised = denoise_volume(
                scan.data, chosen, found,
                reference=reference, mask=mask, checkpoint_path=checkpoint,
                preview=_previewer(checkpoint.with_suffix(".png"), scan),
            )  # fmt: skip
    log.info("%s; the result is that of iteration %s", denoised.reason, _iterations(denoised))
    write_like(output_path, denoised.volume, scan)
    _draw(planes_path, curves_path, scan, denoised, chosen, reference)
    write_history(history_path, denoised.rows)
    metrics = _metrics(scan, denoised, reference, mask)
    write_record(record_path, denoised, chosen, plan, names, identity, metrics)
    for index in range(chosen.fits):
        finish(path_of_fit(checkpoint, index))
    checkpoint.with_suffix(".png").unlink(missing_ok=True)


def _iterations(denoised: Denoised) -> str:
    """The iterations whose average outputs are the result, one per fit."""
    return ", ".join(map(str, denoised.best_iterations))


def _identity(scan: Scan) -> dict:
    """What identifies the input, for the record."""
    return {
        "path": str(scan.path),
        "sha256": sha256(scan.path),
        "volume": scan.volume,
        "shape": list(scan.data.shape),
    }


def _metrics(
    scan: Scan, denoised: Denoised, reference: np.ndarray | None, mask: np.ndarray | None
) -> dict | None:
    """Metrics of the noisy and of the denoised scan; None without a reference."""
    if reference is None:
        return None
    metrics = {"noisy": compare(scan.data, reference, mask)}
    metrics["denoised"] = compare(denoised.volume, reference, mask)
    log.info("against the reference: %s", metrics)
    return metrics


def _plan(
    scan: Scan, settings: DenoiseSettings, devices: Sequence[torch.device]
) -> tuple[DenoiseSettings, MemoryPlan]:
    """Plan the memory; returns the settings with the chosen cut, and the plan."""
    pads = padding(scan.data.shape, settings.network.least_side_vox)
    z, y, x = (side + sum(pad) for side, pad in zip(scan.data.shape, pads, strict=True))
    groups = of_each_fit(devices, settings.fits_at_once)
    plan = plan_memory((z, y, x), settings, groups[0])
    for group in groups:
        check_memory(dataclasses.replace(plan, devices=tuple(map(str, group))), group)
    return dataclasses.replace(settings, cut=plan.cut or settings.cut), plan


def _read_references(
    scan: Scan, reference_path: str | None, mask_path: str | None, fill_nan: float | None
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Read reference and mask; None for one that is not given."""
    reference = read_like(reference_path, scan, "reference") if reference_path else None
    mask = read_like(mask_path, scan, "mask") > 0 if mask_path else None
    if reference is not None and fill_nan is not None:
        reference = np.where(np.isfinite(reference), reference, np.float32(fill_nan))
    if reference is not None and min(scan.data.shape) < 7:
        raise VoxmillError(
            f"{reference_path}: SSIM needs at least 7 voxels along each axis, the scan has "
            f"{scan.data.shape}; leave the reference out."
        )
    if reference is not None and not (np.isfinite(reference).all() and reference.max() > 0):
        raise VoxmillError(
            f"{reference_path}: expected finite intensities with a maximum above 0 in a reference"
        )
    if mask is not None and not mask.any():
        raise VoxmillError(f"{mask_path}: expected a mask with voxels above 0, found none.")
    return reference, mask


def _previewer(path: Path, scan: Scan) -> Callable[[np.ndarray, int], None]:
    def preview(volume: np.ndarray, iteration: int) -> None:
        shown = {"noisy": scan.data, f"iteration {iteration}": volume}
        figures.draw_planes(path, shown, scan.affine, scan.data - volume)

    return preview


def _draw(
    planes_path: str,
    curves_path: str,
    scan: Scan,
    denoised: Denoised,
    settings: DenoiseSettings,
    reference: np.ndarray | None,
) -> None:
    shown = {"noisy": scan.data}
    if reference is not None:
        shown["reference"] = reference
    shown["denoised"] = denoised.volume
    figures.draw_planes(
        planes_path, shown, scan.affine,
        residual=scan.data - denoised.volume, sigma=denoised.domain.sigma,
        title=f"{scan.path.name}: iteration {_iterations(denoised)}",
    )  # fmt: skip
    figures.draw_curves(curves_path, denoised.rows, denoised.best_iterations, settings.stop.rule)
