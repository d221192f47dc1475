"""The job that trains a network: volumes and ground truth in; model, card and curves out."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from voxmill import __version__
from voxmill.config.training import TrainingSettings
from voxmill.config.volumes import table_reading
from voxmill.evaluation.ground_truth import read_truth
from voxmill.geometry import Box
from voxmill.networks import models
from voxmill.runtime.devices import claim
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import sha256
from voxmill.runtime.finished import finish
from voxmill.runtime.jobs import job, logger
from voxmill.training.curves import write_curves
from voxmill.training.fine_tuning import fine_tuning_settings, initial_weights
from voxmill.training.loop import TrainingResult, train
from voxmill.training.sources import Source, check_planned, points_in, training_points
from voxmill.volumes import LABEL_DTYPES, open_volume, read_header
from voxmill.volumes.appearance import joined, seen_in
from voxmill.volumes.fingerprints import path_fingerprint
from voxmill.volumes.header import VolumeHeader
from voxmill.volumes.measure_volume import measure_grey_values
from voxmill.volumes.orientation import place
from voxmill.volumes.plausible import read_configured


def open_sources(
    name: str, volume: dict[str, Any], settings: TrainingSettings
) -> tuple[list[Source], dict[str, Any]]:
    """Open a training volume of the configuration.

    Parameters
    ----------
    name : str
    volume : dict
        `path`, `channel`, `pattern`, `level`, `time`, `dataset`, `voxel_size_um` as
        `voxmill.volumes.read_header` takes them; `truth` with `path`, `kind` and what else
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
        If a file cannot be read, the volume is constant, or a region exceeds the volume.
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
    grey = measure_grey_values(header)
    grey.normaliser(settings.normalisation)
    whole = Box.from_shape(header.shape)
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
    opened = open_volume(header)
    opened_mask = open_volume(mask) if mask else None
    sources = [
        Source(
            name=name if len(regions) == 1 else f"{name}-{number}",
            volume=opened,
            points=points,
            voxel_size_um=header.voxel_size_um,
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
        "cells": len(points),
        "training_cells": sum(len(training_points(s)) for s in sources if s.trains),
        "region": [region.to_lists() for region in regions],
        "validation": [s.validation.to_lists() for s in sources if s.validation],
    }
    return sources, record


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


def make_card(
    name: str,
    settings: TrainingSettings,
    trained: TrainingResult,
    sources: Sequence[Source],
    training: dict[str, Any],
) -> models.ModelCard:
    """Make the card of a trained network.

    Parameters
    ----------
    name : str
    settings : TrainingSettings
    trained : TrainingResult
    sources : sequence of Source
        The training volumes.
    training : dict
        Description of the training data.
    """
    shape = {k: v for k, v in settings.network.items() if k != "kind"}
    seen = [
        seen_in(s.grey, settings.normalisation, len(points_in(s.points, s.region)), s.region)
        for s in sources
        if s.trains
    ]
    return models.ModelCard(
        name=name,
        network=settings.network["kind"],
        settings=shape,
        outputs=settings.output_names,
        normalisation=settings.normalisation,
        threshold=round(trained.validation["threshold"], 4),
        voxel_size_um=sources[0].voxel_size_um,
        cell_diameter_um=settings.cell_diameter_um,
        detector=settings.detector,
        seen=joined(seen),
        training={
            "voxmill": __version__,
            **training,
            "settings": dataclasses.asdict(settings),
            "steps": trained.steps,
            "stopped": trained.stopped,
            "history": trained.history,
        },
        metrics={"validation": trained.validation},
    )


@job(outputs=("output_path", "card_path", "curves_path", "figure_path"))
def train_network(
    *,
    volumes: dict,
    settings: dict,
    output_path: str,
    card_path: str | None = None,
    curves_path: str,
    figure_path: str,
    checkpoint_path: str,
    threads: int,
    initial_path: str | None = None,
    gpus: int = 0,
    record_path: str | None = None,
    fingerprints: dict[str, str] | None = None,
) -> None:
    """Train a network; resumes from the checkpoint where there is one.

    Parameters
    ----------
    volumes : dict of str to dict
        Training and validation volumes by name; see `open_source`.
    settings : dict
        See `voxmill.config.training.TrainingSettings`.
    output_path : path
        Weights (safetensors).
    card_path : path, optional
        The card; it is always written beside the weights.
    curves_path, figure_path : path
        The validations as CSV, and as PNG.
    checkpoint_path : path
        Written during the training; at its end it gets the name of a finished one
        (`voxmill.runtime.finished`).
    threads : int
    initial_path : path, optional
        Weights of a model to start from (fine-tuning).
    gpus : int
        GPUs that the job asked for; see `voxmill.runtime.devices.claim`.
    record_path : path, optional
        Where the job records when and where it ran, and on which GPU.
    fingerprints : dict of str to str, optional
        Of each volume, ground truth and mask when the run was planned, by its path.

    Raises
    ------
    VoxmillError
        If a file is not the planned one, on wrong settings or unusable data, or if a GPU that was
        asked for is not there.
    """
    if initial_path:
        settings = fine_tuning_settings(settings, initial_path)
    checked = TrainingSettings.from_dict(settings)
    opened = {name: open_sources(name, volume, checked) for name, volume in volumes.items()}
    check_planned(volumes, fingerprints)
    sources = [source for of_volume, _ in opened.values() for source in of_volume]
    with claim(gpus, checked.device, record_path, str(output_path)) as held:
        # The device's number is the claim's business: the job sees no other.
        device = held.devices[0].partition(":")[0]
        logger.info("%d volumes, device %s, settings %s", len(opened), device, checked)
        initial = initial_weights(initial_path, checked) if initial_path else None
        trained = train(sources, checked, device, threads, checkpoint_path, initial)
    check_planned(volumes, fingerprints)
    logger.info("%s after %d steps: %s", trained.stopped, trained.steps, trained.validation)
    training: dict[str, Any] = {"volumes": {name: record for name, (_, record) in opened.items()}}
    if initial_path:
        training["started_from"] = {
            "model": models.read_card(initial_path).name,
            "weights_sha256": sha256(initial_path),
        }
    name = Path(output_path).stem
    card = make_card(name, checked, trained, sources, training)
    write_curves(curves_path, figure_path, trained.history)
    models.save(output_path, trained.network, card)
    finish(checkpoint_path)
