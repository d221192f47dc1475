"""Trained models: weights `<name>.safetensors` and a card `<name>.json`.

A model may also be a program of `torch.export` (`<name>.pt2`), see `voxmill.networks.exported`.

The card is checked against the weights' header without torch, so that a wrong file is refused
before any job starts; `save` and `load` need torch.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxmill.networks import check_settings
from voxmill.networks.settings import ExportedSettings
from voxmill.networks.stored import Network, StoredNetwork, module_of
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import read_json, sha256, write_json, writing

if TYPE_CHECKING:
    from torch import nn

CARD_VERSION = 1


@dataclass(frozen=True)
class ModelCard:
    """What is known about a model; `predict` needs nothing beside it.

    Parameters
    ----------
    name : str
        The model's name, as in its file name.
    network : str
        A key of `voxmill.networks.NETWORKS`.
    settings : dict
        The network's settings.
    outputs : tuple of str
        Meaning of each output map; the first is "centroid" or, where the network learnt masks
        instead, "mask".
    normalisation : dict
        `low` and `high`: percentiles of the whole volume that become 0 and 1; `clip`: normalised
        values are clipped to [-clip, clip].
    threshold : float
        Probability from which a maximum is a cell, or a voxel a component's, chosen on validation
        data alone.
    voxel_size_um : tuple of float, optional
        Voxel size (z, y, x) of the training data.
    cell_diameter_um : float, optional
        Typical cell diameter in the training data.
    finder : dict
        Settings of the cell finder that the threshold was chosen with, but for the threshold (see
        `voxmill.cells.find_cells.CellSettings`); empty where the model doesn't say.
    training : dict
        How it was trained (code, data digests, seeds, steps). Models that are shared say in `source`
        where the training data come from, and in `licence` under which licence.
    metrics : dict
        Its scores on validation data.
    weights_sha256 : str
        Digest of the weights file, so that a card and weights of two models don't mix.
    """

    name: str
    network: str
    settings: dict[str, Any]
    outputs: tuple[str, ...] = ("centroid",)
    normalisation: dict[str, Any] = field(
        default_factory=lambda: {"low": 5.0, "high": 99.0, "clip": 10.0}
    )
    threshold: float = 0.5
    voxel_size_um: tuple[float, float, float] | None = None
    cell_diameter_um: float | None = None
    finder: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""
    card_version: int = CARD_VERSION

    @property
    def receptive_radius_vox(self) -> int:
        """The theoretical context of the network on each side, voxels."""
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
    content = read_json(path, "model card")
    known = {f.name for f in dataclasses.fields(ModelCard)}
    required = {"name", "network", "settings", "normalisation", "threshold", "weights_sha256"}
    if unknown := sorted(set(content) - known):
        raise VoxmillError(f"{path}: unknown key {unknown[0]!r}; expected some of {sorted(known)}")
    if missing := sorted(required - set(content)):
        raise VoxmillError(f"{path}: missing key {missing[0]!r} of a model card")
    for key in ("outputs", "voxel_size_um"):
        if content.get(key) is not None:
            content[key] = tuple(content[key])
    card = ModelCard(**content)
    try:
        settings = check_settings(card.network, card.settings)
    except VoxmillError as error:
        raise VoxmillError(f"{path}: {error}") from None
    if isinstance(settings, ExportedSettings):
        if not Path(weights_path).exists():
            raise VoxmillError(f"{weights_path}: this program does not exist.")
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
        raise VoxmillError(f"{path}: this weights file does not exist.") from None
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
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
    from safetensors.numpy import load_file

    return card, StoredNetwork(card.network, settings, load_file(weights_path))
