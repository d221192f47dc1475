"""Training volumes of a configuration, opened with their ground truth and measured."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from voxmill.config.training import TrainingSettings
from voxmill.config.volumes import table_reading
from voxmill.evaluation.ground_truth import read_truth
from voxmill.geometry import Box
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import sha256
from voxmill.runtime.jobs import logger
from voxmill.training.sources import Source, training_points
from voxmill.volumes import LABEL_DTYPES, open_volume, read_header
from voxmill.volumes.fingerprints import path_fingerprint
from voxmill.volumes.header import VolumeHeader
from voxmill.volumes.measure_volume import measure_grey_values
from voxmill.volumes.orientation import place
from voxmill.volumes.plausible import read_configured
from voxmill.volumes.protocols import ReadableVolume
from voxmill.volumes.resampled import ResampledWindows, at_voxel_size
from voxmill.volumes.windows import Windows


def open_sources(
    name: str, volume: dict[str, Any], settings: TrainingSettings
) -> tuple[list[Source], dict[str, Any]]:
    """Open a training volume of the configuration.

    Parameters
    ----------
    name : str
    volume : dict
        `path`, `channel`, `pattern`, `level`, `time`, `dataset`, `voxel_size_um` as
        `voxmill.volumes.read_header` takes them; `cell_diameter_um` where the settings have a
        `cell_diameter_vox`; `truth` with `path`, `kind` and what else
        `read_truth` takes; optional `mask` (path of a mask or label volume; by default the ground
        truth, if it is one), `region` (where the ground truth is complete; boxes as text, with
        semicolons between) and `validation` (true, or a box as text).
    settings : TrainingSettings

    Returns
    -------
    sources : list of Source
        One for each region.
    record : dict
        Description of the volume for the model card.

    Raises
    ------
    VoxmillError
        If a file cannot be read, the volume is constant, a region exceeds the volume, or the
        diameter of its cells is missing or has no meaning.
    """
    header, warnings = read_configured(volume)
    for warning in warnings:
        logger.warning("%s", warning)
    if header.voxel_size_um is None:
        raise VoxmillError(
            f"{volume['path']}: expected a voxel size in the header, found none. Set "
            f"voxel_size_um of training volume {name!r} (z, y, x, micrometres)."
        )
    truth = volume["truth"]
    reading = table_reading(truth)
    points = read_truth(
        truth["path"], truth.get("kind"), header.shape, header.voxel_size_um,
        volume=header, **reading,
    )  # fmt: skip
    read, counted_um = _as_read(name, volume, header, settings)
    grey = measure_grey_values(read, counted_um=counted_um)
    grey.normaliser(settings.normalisation)
    whole, grid = Box.from_shape(header.shape), read.resampling
    texts = volume["region"].split(";") if volume.get("region") else []
    regions = [Box.parse(text, whole.shape) for text in texts] or [whole]
    held = volume.get("validation")
    box = Box.parse(held, whole.shape) if isinstance(held, str) else None
    mask_path = volume.get("mask")
    if mask_path is None and truth.get("kind") in ("mask", "labels"):
        mask_path = truth["path"]
    if not settings.needs_mask:
        mask_path = None
    mask = _mask_header(mask_path, header) if mask_path else None
    # Both are often one file, which may be large.
    digests = {path: _digest(path) for path in {truth["path"], mask_path} if path}
    contents = [grey.statistics["content"]]
    if mask:
        contents.append(digests[mask_path] or path_fingerprint(mask.path))
    if grid is not None:
        # The last new voxel may end within the file's last one.
        points = np.clip(grid.from_own(points), 0, np.array(read.shape) - 1)
        regions = [grid.covering(region) for region in regions]
        box = grid.covering(box) if box else None
    opened = open_volume(read)
    opened_mask = _open_mask(mask, read) if mask else None
    sources = [
        Source(
            name=name if len(regions) == 1 else f"{name}-{number}",
            volume=opened,
            points=points,
            voxel_size_um=counted_um,
            grey=grey,
            region=region,
            validation=region if held is True else _part(box, region, regions),
            mask=opened_mask,
            contents=" ".join(contents),
        )
        for number, region in enumerate(regions, start=1)
    ]
    record = {
        "volume": Path(volume["path"]).name,
        "content": contents[0],
        "truth": Path(truth["path"]).name,
        "truth_sha256": digests[truth["path"]],
        "mask": Path(mask_path).name if mask_path else None,
        "mask_sha256": digests.get(mask_path),
        "cell_diameter_um": volume.get("cell_diameter_um"),
        "cells": len(points),
        "training_cells": sum(len(training_points(s)) for s in sources if s.trains),
        "region": [region.to_lists() for region in regions],
        "validation": [s.validation.to_lists() for s in sources if s.validation],
    }
    return sources, record


def _as_read(
    name: str, volume: dict[str, Any], header: VolumeHeader, settings: TrainingSettings
) -> tuple[VolumeHeader, tuple[float, float, float]]:
    """The header of a volume as it is read, and what one of these voxels counts as in lengths."""
    diameter_um, vox = volume.get("cell_diameter_um"), settings.cell_diameter_vox
    if (diameter_um is None) != (vox is None):
        raise VoxmillError(
            f"training volume {name!r}: expected cell_diameter_um for a training with "
            f"cell_diameter_vox, and only then; found {diameter_um} and {vox}. Give the typical "
            "diameter of the cells in the volume in micrometres, or leave it out."
        )
    if diameter_um is None:
        return header, header.known_voxel_size_um
    learnt = np.broadcast_to(np.asarray(vox, float), 3)
    z, y, x = (settings.cell_diameter_um / learnt).tolist()
    return at_voxel_size(header, (diameter_um / learnt).tolist()), (z, y, x)


class _Marked(Windows):
    """1 in the voxels of cells, 0 elsewhere: numbers of labels have no mean."""

    def __init__(self, header: VolumeHeader):
        super().__init__(dataclasses.replace(header, dtype="uint8"))
        self._labels = open_volume(header)

    def close(self) -> None:
        self._labels.close()

    def read_window(self, start: Sequence[int], stop: Sequence[int]) -> np.ndarray:
        return (self._labels.read_window(start, stop) != 0).astype(np.uint8)


def _open_mask(mask: VolumeHeader, read: VolumeHeader) -> ReadableVolume:
    """A mask in the voxels that its volume is read in: those that are mostly in cells."""
    if read.resampling is None:
        return open_volume(mask)
    marked = _Marked(mask)
    return ResampledWindows(marked, at_voxel_size(marked.header, read.voxel_size_um))


def _part(box: Box | None, region: Box, regions: Sequence[Box]) -> Box | None:
    """The part of the validation box that a region keeps out of the training, if any."""
    if box is None or len(regions) == 1:
        return box
    return region.clip(box) if region.overlaps(box) else None


def _digest(path: str | Path) -> str | None:
    # A folder of planes has no single digest.
    return sha256(path) if Path(path).is_file() else None


def _mask_header(path: str | Path, header: VolumeHeader) -> VolumeHeader:
    mask = read_header(path, voxel_size_um=header.voxel_size_um, dtypes=LABEL_DTYPES)
    if mask.shape != header.shape:
        raise VoxmillError(
            f"{path}: expected a mask of the volume's shape {list(header.shape)}, "
            f"found {list(mask.shape)}"
        )
    if not place(mask, header).is_identity:
        raise VoxmillError(
            f"{path}: expected a mask whose axes run as those of the volume {header.path}, found "
            "others in its affine. Save it in the volume's orientation, for example with "
            "nibabel.processing.resample_from_to (order=0)."
        )
    return mask
