"""A training that starts from a model: its settings and its weights."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from voxmill.config.training import TrainingSettings
from voxmill.networks import models
from voxmill.networks.heads import parts_objects
from voxmill.runtime.errors import VoxmillError


def initial_weights(path: str | Path, settings: TrainingSettings) -> dict[str, torch.Tensor]:
    """Read the weights of a model to start from.

    If the training has more outputs than the model, they start as copies of the model's first
    output; if it has fewer, the model's last ones are left out.

    Parameters
    ----------
    path : path
        Weights of the model.
    settings : TrainingSettings

    Raises
    ------
    VoxmillError
        If the model has another network than the training.
    """
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


def fine_tuning_settings(settings: dict[str, Any], initial_path: str | Path) -> dict[str, Any]:
    """Add what a training has in common with the model to start from.

    Network, normalisation and cell diameter are the model's; so are target, detector, augmentation
    and weight of cells where the training learns what the model has learnt.

    Parameters
    ----------
    settings : dict
        Plain settings of `TrainingSettings`; they override those of the model.
    initial_path : path
        Weights of the model.
    """
    card = models.read_card(initial_path)
    network = {k: v for k, v in card.settings.items() if k != "outputs"}
    filled: dict[str, Any] = {
        "network": {"kind": card.network, **network},
        "normalisation": card.normalisation,
    }
    if card.cell_diameter_vox:
        filled["cell_diameter_vox"] = card.cell_diameter_vox
    if card.cell_diameter_um:
        filled["cell_diameter_um"] = card.cell_diameter_um
    target = settings.get("target", card.outputs[0])
    if target == card.outputs[0]:
        learnt = card.training.get("settings", {})
        kept = [k for k in ("augmentation", "positive_weight") if learnt.get(k) is not None]
        filled |= {"target": target} | {key: learnt[key] for key in kept}
        alike = settings.get("cell_diameter_um", card.cell_diameter_um) == card.cell_diameter_um
        if alike and parts_objects(card.outputs) == (settings.get("touching", "none") != "none"):
            filled["detector"] = card.detector or {}
    return filled | settings
