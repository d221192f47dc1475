"""Training as a job: volumes and truth in, model, card and curves out."""

import dataclasses
from pathlib import Path

from voxmill import __version__
from voxmill.evaluation.ground_truth import read_truth
from voxmill.networks import models
from voxmill.prediction.box import resolve_device
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import sha256
from voxmill.runtime.jobs import job, logger
from voxmill.tiles.grid import parse_region
from voxmill.training.curves import write_curves
from voxmill.training.loop import Outcome, train
from voxmill.training.settings import TrainingSettings
from voxmill.training.sources import Source, training_points, whole
from voxmill.volumes import LABEL_DTYPES, SOURCE_KEYS, fingerprint, open_volume, read_header
from voxmill.volumes.measure_volume import measure
from voxmill.volumes.normalisation import check_normalisation


def open_source(name: str, volume: dict, settings: TrainingSettings) -> tuple[Source, dict]:
    """A training volume of the configuration, opened.

    Parameters
    ----------
    name : str
    volume : dict
        `path`, `channel`, `level`, `time`, `dataset`, `voxel_size_um` as
        `voxmill.volumes.read_header` takes them; `truth`
        with `path` and `kind`; optional `mask` (path of a mask or label volume for the foreground;
        by default the truth, where it is one), `region` (where the truth is complete) and
        `validation` (true, or a box as text).
    settings : TrainingSettings

    Returns
    -------
    source : Source
    record : dict
        What the model card keeps of it.

    Raises
    ------
    VoxmillError
        If a file can't be read, the volume is constant, or a region leaves the volume.
    """
    chosen = {key: volume[key] for key in SOURCE_KEYS if key in volume}
    header = read_header(volume["path"], voxel_size_um=volume.get("voxel_size_um"), **chosen)
    if header.voxel_size_um is None:
        raise VoxmillError(
            f"{volume['path']}: expected a voxel size in the header, found none. Set "
            f"voxel_size_um of training volume {name!r} (z, y, x, micrometres)."
        )
    truth = volume["truth"]
    points = read_truth(truth["path"], truth.get("kind"), header.shape, header.voxel_size_um)
    statistics = measure(header)
    check_normalisation(statistics, settings.normalisation)
    region = volume.get("region")
    region = parse_region(region, header.shape) if region else whole(header.shape)
    held = volume.get("validation")
    validation = region if held is True else parse_region(held, header.shape) if held else None
    mask_path = volume.get("mask")
    if mask_path is None and truth.get("kind") in ("mask", "labels"):
        mask_path = truth["path"]
    if not settings.needs_mask:
        mask_path = None
    mask = _mask_header(mask_path, header) if mask_path else None
    # Often one file, which may be large.
    digests = {path: _digest(path) for path in {truth["path"], mask_path} if path}
    contents = [fingerprint(header)]
    if mask:
        contents.append(digests[mask_path] or fingerprint(mask))
    source = Source(
        name=name,
        volume=open_volume(header),
        points=points,
        voxel_size_um=header.voxel_size_um,
        statistics=statistics,
        region=region,
        validation=validation,
        mask=open_volume(mask) if mask else None,
        contents=" ".join(contents),
    )
    record = {
        "volume": Path(volume["path"]).name,
        "fingerprint": contents[0],
        "truth": Path(truth["path"]).name,
        "truth_sha256": digests[truth["path"]],
        "mask": Path(mask_path).name if mask_path else None,
        "mask_sha256": digests.get(mask_path),
        "cells": len(points),
        "training_cells": len(training_points(source)) if source.trains else 0,
        "region": region,
        "validation": validation,
    }
    return source, record


def _digest(path) -> str | None:
    # A folder of planes has no digest of its own.
    return sha256(path) if Path(path).is_file() else None


def _mask_header(path, header):
    mask = read_header(path, voxel_size_um=header.voxel_size_um, dtypes=LABEL_DTYPES)
    if mask.shape != header.shape:
        raise VoxmillError(
            f"{path}: expected a mask of the volume's shape {list(header.shape)}, "
            f"found {list(mask.shape)}"
        )
    return mask


def make_card(
    name: str, settings: TrainingSettings, outcome: Outcome, voxel_size_um, training: dict
) -> models.ModelCard:
    """The card of a trained network; `training` says what it was trained on."""
    shape = {k: v for k, v in settings.network.items() if k != "kind"}
    return models.ModelCard(
        name=name,
        network=settings.network["kind"],
        settings=shape,
        outputs=(settings.target, "foreground")[: settings.outputs],
        normalisation=settings.normalisation,
        threshold=round(outcome.validation["threshold"], 4),
        voxel_size_um=tuple(voxel_size_um),
        cell_diameter_um=settings.cell_diameter_um,
        finder=settings.finder,
        training={
            "voxmill": __version__,
            **training,
            "settings": dataclasses.asdict(settings),
            "steps": outcome.steps,
            "stopped": outcome.stopped,
            "history": outcome.history,
        },
        metrics={"validation": outcome.validation},
    )


def initial_weights(path, settings: TrainingSettings) -> dict:
    """Weights of a model to start from.

    A model without a foreground map lends all but that map, which starts from its centroid map.

    Raises
    ------
    VoxmillError
        If the model's network is another than the training's.
    """
    import torch

    card, network = models.load(path)
    shape = {k: v for k, v in settings.network.items() if k != "kind"}
    theirs = dataclasses.asdict(network.settings)
    if card.network != settings.network["kind"] or {**theirs, "outputs": shape["outputs"]} != shape:
        raise VoxmillError(
            f"{path}: fine-tuning needs the network of this model, {card.network} with {theirs}; "
            f"found {settings.network} in training.network. Leave training.network out."
        )
    weights = network.state_dict()
    missing = shape["outputs"] - theirs["outputs"]
    if missing > 0:
        for key in ("final_weight", "final_bias"):
            weights[key] = torch.cat([weights[key], weights[key][:1].repeat_interleave(missing, 0)])
    elif missing < 0:
        for key in ("final_weight", "final_bias"):
            weights[key] = weights[key][: shape["outputs"]].clone()
    return weights


def fine_tuning_settings(settings: dict, initial_path) -> dict:
    """Settings with what follows from the model to start from, unless they say otherwise."""
    card = models.read_card(initial_path)
    network = {k: v for k, v in card.settings.items() if k != "outputs"}
    filled = {"network": {"kind": card.network, **network}, "normalisation": card.normalisation}
    if card.cell_diameter_um:
        filled["cell_diameter_um"] = card.cell_diameter_um
    return filled | settings


@job
def train_network(
    *,
    volumes: dict,
    settings: dict,
    output_path: str,
    curves_path: str,
    figure_path: str,
    checkpoint_path: str,
    threads: int,
    initial_path: str | None = None,
) -> None:
    """Train a network; resumes from the checkpoint where there is one.

    Parameters
    ----------
    volumes : dict of str to dict
        Training and validation volumes by name; see `open_source`.
    settings : dict
        See `voxmill.training.settings.TrainingSettings`.
    output_path : path
        Weights (safetensors); the card is written beside them.
    curves_path, figure_path : path
        The validations as CSV, and as PNG.
    checkpoint_path : path
        Written during the training, removed at its end.
    threads : int
    initial_path : path, optional
        Weights of a model to start from (fine-tuning).
    """
    if initial_path:
        settings = fine_tuning_settings(settings, initial_path)
    checked = TrainingSettings.from_dict(settings)
    device = resolve_device(checked.device)
    opened = {name: open_source(name, volume, checked) for name, volume in volumes.items()}
    sources = [source for source, _ in opened.values()]
    logger.info("%d volumes, device %s, settings %s", len(sources), device, checked)
    initial = initial_weights(initial_path, checked) if initial_path else None
    outcome = train(sources, checked, device, threads, checkpoint_path, initial)
    logger.info("%s after %d steps: %s", outcome.stopped, outcome.steps, outcome.validation)
    training = {"volumes": {name: record for name, (_, record) in opened.items()}}
    if initial_path:
        training["started_from"] = {
            "model": models.read_card(initial_path).name,
            "weights_sha256": sha256(initial_path),
        }
    name = Path(output_path).stem
    card = make_card(name, checked, outcome, sources[0].voxel_size_um, training)
    write_curves(curves_path, figure_path, outcome.history)
    models.save(output_path, outcome.network, card)
    Path(checkpoint_path).unlink(missing_ok=True)
