"""Grey values of a volume, its blocks and where tissue is, in one pass."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from voxmill.config.normalisation import PERCENTILES
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.jobs import job, logger, progress
from voxmill.volumes import (
    LABEL_DTYPES,
    VOLUME_DTYPES,
    VolumeHeader,
    check_finite,
    check_source,
    open_volume,
    read_header,
)
from voxmill.volumes.fingerprints import Content, remember
from voxmill.volumes.grey_blocks import BlockPass, GreyBlocks, block_edges
from voxmill.volumes.grey_summaries import BlockSample, Histogram, Sample, Unrelated
from voxmill.volumes.grey_values import GreyValues, write_grey_values
from voxmill.volumes.header import check_dtype
from voxmill.volumes.sources import MADE, check_files
from voxmill.volumes.tissue import Tissue, find_tissue, read_tissue

__all__ = ["PERCENTILES", "measure", "measure_grey_values", "measure_volume"]

_PIECE = 2**20
"""Voxels that are converted to 64 bits at a time, so that memory stays near that of one plane."""


def measure(header: VolumeHeader, **options: Any) -> dict[str, Any]:
    """The statistics of `measure_grey_values` alone."""
    return measure_grey_values(header, **options).statistics


def measure_grey_values(
    header: VolumeHeader,
    tissue: str = "auto",
    max_voxels: int = 2**33,
    max_samples: int = 2**23,
    seed: int = 0,
    counted_um: Sequence[float] | None = None,
) -> GreyValues:
    """Percentiles, extremes, mean and standard deviation of the tissue; its blocks and mask.

    Where all is tissue, whole numbers are counted in a histogram, so that their percentiles are
    exact (those of `numpy.percentile` with linear interpolation). A float volume of more than
    `max_samples` voxels is cut into runs of equal length, and one voxel of each is drawn at random
    for the percentiles. Of a volume of more than `max_voxels` only evenly spaced planes count, but
    all are read for the digest.
    Where a part is air, the voxels that were looked at in blocks of tissue count. The result says
    which.

    Parameters
    ----------
    header : VolumeHeader
    tissue : str
        "auto", "none" (all is tissue), or the path of a mask; see `voxmill.volumes.tissue`.
    max_voxels : int
        Most voxels that are counted.
    max_samples : int
        Most voxels that are kept for the percentiles.
    seed : int
        Of the draw.
    counted_um : (3,) float, optional
        What a voxel counts as in lengths of blocks and of the normalisation, the header's voxel
        size by default: of a volume that was resampled to the cells that a model has learnt, the
        voxel size at which these cells have the diameter of the model's card.

    Returns
    -------
    GreyValues
        Its `statistics` are JSON content: `percentiles` (keys as "99.9"), `minimum`, `maximum`,
        `mean`, `std`, `dtype`, `shape`, `voxels_read`, `planes_read`, `method`, `content`
        (digest of every voxel), `tissue` (the rule and the share of the volume), and `samples`
        where voxels were drawn.

    Raises
    ------
    VoxmillError
        If the volume is constant, or holds NaN or infinite voxels, or a mask of tissue can't be
        used.
    """
    check_dtype(header.path, np.dtype(header.dtype), VOLUME_DTYPES)
    statistics, blocks, sample = _read(
        header, max_voxels, max_samples, seed, counted_um or header.voxel_size_um
    )
    if statistics["minimum"] == statistics["maximum"]:
        raise VoxmillError(
            f"{header.path}: expected a volume with contrast, found every voxel to be "
            f"{statistics['minimum']:g}. Check the file and the channel."
        )
    mask, wholly, about = _tissue(tissue, blocks, header.own_shape)
    about["share"] = mask.share()
    if not mask.blocks.all():
        statistics |= sample.result(wholly)
        logger.info("%s: %.1f %% tissue", header.path, 100 * about["share"])
    return GreyValues(statistics | {"tissue": about}, blocks, mask)


def _read(
    header: VolumeHeader,
    max_voxels: int,
    max_samples: int,
    seed: int,
    counted_um: Sequence[float] | None,
) -> tuple[dict[str, Any], GreyBlocks, BlockSample]:
    """Statistics of the whole volume, its blocks, and voxels of each."""
    depth, plane_voxels = header.shape[0], math.prod(header.shape[1:])
    step = max(1, math.ceil(depth * plane_voxels / max_voxels))
    counted = range(0, depth, step)
    summary: Sample | Histogram
    if np.dtype(header.dtype).kind == "f":
        run = max(1, math.ceil(len(counted) * plane_voxels / max_samples))
        summary = Sample(run, np.random.default_rng(seed))
    else:
        summary = Histogram(np.dtype(header.dtype))
    blocks = BlockPass(header.shape, block_edges(header.shape, counted_um))
    sample = BlockSample(max_samples, blocks.samples, np.random.default_rng(seed))
    content, unrelated = Content(header), Unrelated(np.dtype(header.dtype))
    with open_volume(header) as volume:
        for z in progress(range(depth), depth, "plane", "measuring grey values"):
            plane = volume.read_window((z, 0, 0), (z + 1, *header.shape[1:]))
            content.add(plane[0])
            if not (z in counted or blocks.wants(z)):
                continue
            check_finite(plane, header.path, (z, 0, 0))
            unrelated.add(plane[0])
            values = plane.ravel()
            for start in range(0, len(values) if z in counted else 0, _PIECE):
                summary.add(values[start : start + _PIECE])
            if (layer := blocks.add(z, plane[0])) is not None:
                sample.add(layer)
    if warning := unrelated.warning():
        logger.warning("%s: %s", header.path, warning)
    statistics = summary.result()
    read = "every plane" if step == 1 else f"planes 0, {step}, {2 * step}, ..."
    statistics |= {
        "dtype": header.dtype,
        "shape": list(header.shape),
        "content": content.hexdigest(),
        "planes_read": len(counted),
        "voxels_read": len(counted) * plane_voxels,
        "method": f"{statistics['method']} of {read}",
    }
    return statistics, blocks.result(counted_um), sample


def _tissue(
    tissue: str, blocks: GreyBlocks, own_shape: Sequence[int] | None
) -> tuple[Tissue, np.ndarray, dict[str, Any]]:
    """Blocks of tissue, those that are wholly tissue, and how they were found."""
    if tissue == "auto":
        return find_tissue(blocks)
    if tissue == "none":
        everything = np.ones(blocks.levels.shape[1:], bool)
        return Tissue(blocks.shape, blocks.edge_vox, everything), everything, {"rule": "none"}
    header = read_header(tissue, dtypes=LABEL_DTYPES)
    with open_volume(header) as mask:
        return read_tissue(mask, blocks, tissue, own_shape)


@job(outputs=("output_path", "blocks_path"))
def measure_volume(
    *,
    volume: dict,
    output_path: str,
    blocks_path: str,
    tissue: str = "auto",
    fingerprint: str | None = None,
    counted_um: Sequence[float] | None = None,
    tissue_fingerprint: str | None = None,
) -> None:
    """Write what is known about the grey values of a volume; see `measure_grey_values`.

    Parameters
    ----------
    volume : dict
        Arguments of `voxmill.volumes.read_header`.
    output_path, blocks_path : path
        As of `voxmill.volumes.grey_values.write_grey_values`.
    tissue : str
    fingerprint : str, optional
        Of the volume as the run was planned; kept with the statistics.
    counted_um : (3,) float, optional
        As of `measure_grey_values`.
    tissue_fingerprint : str, optional
        Of the mask of tissue as the run was planned; another one is refused.

    Raises
    ------
    VoxmillError
        If the volume can't be read, is constant, holds NaN or infinite voxels, or is not the
        planned one, or a mask of tissue can't be used.
    """
    header = read_header(**volume)
    check_source(header, fingerprint)
    values = measure_grey_values(header, tissue, counted_um=counted_um)
    check_source(header, fingerprint)
    if tissue_fingerprint:
        check_files([tissue], [tissue_fingerprint])
    if fingerprint and not fingerprint.startswith(MADE):
        remember(header, values.statistics["content"])
    about = values.statistics | {"fingerprint": fingerprint}
    write_grey_values(dataclasses.replace(values, statistics=about), output_path, blocks_path)
