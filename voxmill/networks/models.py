"""Trained models: weights `<name>.safetensors` and a card `<name>.json`.

A model may also be a program of `torch.export` (`<name>.pt2`), see `voxmill.networks.exported`.

The card is checked against the weights' header without torch, so that a wrong file is refused
before any job starts; `save` and `load` need torch.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from voxmill.config.base import (
    Checked,
    Count,
    Positive,
    Section,
    Share,
    Text,
    TripleUm,
    section,
    setting,
)
from voxmill.config.cells import CellSettings
from voxmill.config.model_range import Seen
from voxmill.config.networks import ExportedSettings, NetworkKind, check_settings
from voxmill.config.normalisation import Normalisation
from voxmill.networks.heads import check_outputs
from voxmill.networks.stored import Network, StoredNetwork, module_of
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.fetched import is_no_file
from voxmill.runtime.files import read_json, sha256, write_json, writing
from voxmill.runtime.paths import advice

if TYPE_CHECKING:
    from torch import nn

CARD_VERSION = 1

# What a header raises that is no JSON object of tensors.
_NO_SAFETENSORS = (
    *(struct.error, ValueError, LookupError, TypeError, AttributeError, ArithmeticError),
    *(RecursionError, MemoryError),
)


@section("model card")
class ModelCard(Section):
    """What is known about a model; a prediction needs nothing beside it."""

    name: Text
    """The model's name, as in its file name."""
    network: NetworkKind
    """A key of `voxmill.networks.NETWORKS`."""
    settings: dict[str, Any]
    """The network's settings."""
    outputs: tuple[Text, ...] = ("centroid",)
    """Meaning of each output map; the first is "centroid" or, where the network learnt masks
    instead, "mask". "foreground" are masks beside centroids; "distance", "centre" and "boundary"
    part touching objects and need masks (`voxmill.networks.heads`)."""
    normalisation: Annotated[dict[str, Any], Checked(Normalisation)] = setting(
        factory=lambda: Normalisation().plain()
    )
    """How grey values become the network's input."""
    threshold: Share = 0.5
    """Probability from which a maximum is a cell, or a voxel a component's, chosen on validation
    data alone."""
    voxel_size_um: TripleUm | None = None
    """Voxel size (z, y, x) of the training data."""
    cell_diameter_um: Positive | None = None
    """Typical cell diameter in the training data. Of a model with `cell_diameter_vox`: the one that
    the lengths of this card (normalisation, detector) are for; they are taken relative to it."""
    cell_diameter_vox: Positive | tuple[Positive, Positive, Positive] | None = None
    """Typical cell diameter in voxels, one or z, y, x, of a model that was trained on volumes of
    several voxel sizes, each resampled to this diameter; such a model has no `voxel_size_um`."""
    detector: Annotated[dict[str, Any], Checked(CellSettings)] = setting(factory=dict)
    """Settings of the detector that the threshold was chosen with, without the threshold; empty
    where the model doesn't say."""
    seen: Annotated[dict[str, Any], Checked(Seen)] = setting(factory=dict)
    """What the training volumes looked like; a run warns where a volume looks unlike them. Empty
    where the model doesn't say."""
    training: dict[str, Any] = setting(factory=dict)
    """How it was trained: code, digests of the data, seeds, steps. Models that are shared say in
    `source` where the training data come from, and in `licence` under which licence."""
    metrics: dict[str, Any] = setting(factory=dict)
    """Its scores on validation data."""
    weights_sha256: Text = ""
    """Digest of the weights file, so that a card and weights of two models don't mix."""
    card_version: Count = CARD_VERSION
    """Of this list of keys."""

    @property
    def receptive_radius_vox(self) -> int:
        """The theoretical halo of the network on each side, voxels."""
        return check_settings(self.network, self.settings).receptive_radius_vox


def card_path(weights_path: str | Path) -> Path:
    """Path of the card that belongs to a weights file."""
    return Path(weights_path).with_suffix(".json")


def read_card(weights_path: str | Path) -> ModelCard:
    """Read a model's card and check it against the header of its weights; torch-free and fast.

    Raises
    ------
    VoxmillError
        If the weights or the card are missing or unreadable, a key is unknown or missing, or the
        tensors in the weights file are not those of the network that the card names.
    """
    path = card_path(weights_path)
    if is_no_file(Path(weights_path)):
        raise VoxmillError(f"{weights_path}: expected weights, found no plain file. Give a file.")
    content = read_json(path, "model card")
    for key in ("normalisation", "threshold", "weights_sha256"):
        if key not in content:
            raise VoxmillError(f"{path}: missing key {key!r} of a model card")
    card = ModelCard.from_dict(content, key="", source=str(path))
    try:
        settings = check_settings(card.network, card.settings)
    except VoxmillError as error:
        raise VoxmillError(f"{path}: {error}") from None
    check_outputs(card.outputs, settings.outputs, str(path))
    if isinstance(settings, ExportedSettings):
        if not Path(weights_path).exists():
            raise VoxmillError(
                f"{weights_path}: this program does not exist. {advice(weights_path)}"
            )
    else:
        _check_tensors(Path(weights_path), card.network, settings.tensor_shapes())
    return card


def _check_tensors(path: Path, network: str, expected: dict[str, tuple[int, ...]]) -> None:
    found = tensor_shapes(path)
    for name in sorted(set(expected) | set(found)):
        if expected.get(name) != found.get(name):
            raise VoxmillError(
                f"{path}: these are weights of another network: the card describes {network} with "
                f"tensor {name} of shape {expected.get(name, 'none')}, found "
                f"{found.get(name, 'none')}. Take the card and the weights of one model."
            )


def tensor_shapes(weights_path: str | Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a safetensors file, from its header alone.

    Raises
    ------
    VoxmillError
        If the file is missing, is no safetensors file or is cut short.
    """
    path = Path(weights_path)
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise ValueError(f"a header of {length} bytes in a file of {path.stat().st_size}")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        end = 8 + length + max((t["data_offsets"][1] for t in header.values()), default=0)
        if end != path.stat().st_size:
            raise ValueError(f"{path.stat().st_size} bytes where the header announces {end}")
        return {name: tuple(tensor["shape"]) for name, tensor in header.items()}
    except FileNotFoundError:
        raise VoxmillError(f"{path}: this weights file does not exist. {advice(path)}") from None
    except OSError as error:
        raise VoxmillError(f"{path}: these weights cannot be read: {error.strerror}.") from None
    except _NO_SAFETENSORS as error:
        raise VoxmillError(f"{path}: expected weights as safetensors, found {error}") from None


def save(path: str | Path, network: nn.Module, card: ModelCard) -> ModelCard:
    """Write weights and card; return the card with the weights' digest."""
    from safetensors.torch import save_file

    with writing(path) as scratch:
        state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
        save_file(state, scratch)
        # safetensors writes files that only their owner can read; models are shared.
        scratch.chmod(0o644)
    card = dataclasses.replace(card, weights_sha256=sha256(path))
    write_json(card_path(path), dataclasses.asdict(card))
    return card


def load(weights_path: str | Path) -> tuple[ModelCard, Any]:
    """Read a model: its card, and its network as a torch module in eval mode on the CPU.

    Raises
    ------
    VoxmillError
        As `load_stored`.
    """
    card, network = load_stored(weights_path)
    return card, module_of(network)


def load_stored(weights_path: str | Path) -> tuple[ModelCard, Network]:
    """Read a model without torch: its card, and its network for `voxmill.engine.backends`.

    Returns
    -------
    card : ModelCard
    network : StoredNetwork, or a torch module if the model is a program of `torch.export`

    Raises
    ------
    VoxmillError
        As `read_card`, or if the weights are not those that the card was written for.
    """
    card = read_card(weights_path)
    digest = sha256(weights_path)
    if digest != card.weights_sha256:
        raise VoxmillError(
            f"{weights_path}: its SHA-256 is {digest[:12]}..., the card {card_path(weights_path)} "
            f"was written for {card.weights_sha256[:12]}...: take both from the same model."
        )
    settings = check_settings(card.network, card.settings)
    if isinstance(settings, ExportedSettings):
        from voxmill.networks.exported import Exported

        return card, Exported(settings, weights_path)
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(weights_path)
    except (SafetensorError, *_NO_SAFETENSORS) as error:
        raise VoxmillError(
            f"{weights_path}: expected weights as safetensors, found {error}. Copy the model again."
        ) from None
    return card, StoredNetwork(card.network, settings, arrays)
