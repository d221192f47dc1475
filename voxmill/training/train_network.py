"""The job that trains a network: volumes and ground truth in; model, card and curves out."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from voxmill import __version__
from voxmill.config.training import TrainingSettings
from voxmill.networks import models
from voxmill.runtime.devices import claim
from voxmill.runtime.files import sha256
from voxmill.runtime.finished import finish
from voxmill.runtime.jobs import job, logger
from voxmill.training.curves import write_curves
from voxmill.training.fine_tuning import fine_tuning_settings, initial_weights
from voxmill.training.loop import TrainingResult, train
from voxmill.training.open_sources import open_sources
from voxmill.training.sources import Source, check_planned, points_in
from voxmill.volumes.appearance import joined, seen_in


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
        voxel_size_um=None if settings.cell_diameter_vox else sources[0].voxel_size_um,
        cell_diameter_um=settings.cell_diameter_um,
        cell_diameter_vox=settings.cell_diameter_vox,
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
        initial, threshold = None, None
        if initial_path:
            initial = initial_weights(initial_path, checked)
            threshold = models.read_card(initial_path).threshold
        trained = train(sources, checked, device, threads, checkpoint_path, initial, threshold)
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
