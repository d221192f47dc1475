"""Checkpoints: one safetensors file with everything that a training needs to resume.

The file is always replaced whole. It holds no state of random numbers, as each step draws from a
generator with the seed (seed, step).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import writing

VERSION = "1"


def save_checkpoint(
    path: str | Path,
    network: torch.nn.Module,
    average: Mapping[str, torch.Tensor],
    best: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    progress: dict[str, Any],
) -> None:
    """Write a checkpoint, whole or not at all.

    Parameters
    ----------
    path : path
    network : torch module
    average, best : dict of str to tensor
        Moving average of the weights, and the average of the best validation so far.
    optimizer : torch.optim.Adam
    progress : dict
        JSON content: step, history, digest of settings and data, and so on.
    """
    tensors = {f"weights/{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"average/{k}": v for k, v in average.items()}
    tensors |= {f"best/{k}": v for k, v in best.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"adam/{index}/{key}": torch.as_tensor(v) for key, v in state.items()}
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    with writing(path) as scratch:
        save_file(tensors, scratch, {"version": VERSION, "progress": json.dumps(progress)})


def load_checkpoint(
    path: str | Path, network: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, Any]]:
    """Restore the weights of a network and the state of its optimiser from a checkpoint.

    Parameters
    ----------
    path : path
    network : torch module
    optimizer : torch.optim.Adam

    Returns
    -------
    average, best : dict of str to tensor
        As in `save_checkpoint`.
    progress : dict

    Raises
    ------
    VoxmillError
        If the file is unreadable or of another network.
    """
    try:
        with safe_open(path, "pt") as file:
            progress = json.loads(file.metadata()["progress"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        parts: dict[str, dict] = {"weights": {}, "average": {}, "best": {}, "adam": {}}
        for name, tensor in tensors.items():
            part, key = name.split("/", 1)
            parts[part][key] = tensor
        network.load_state_dict(parts["weights"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise VoxmillError(
            f"{path}: expected a checkpoint of this training, found {error}. Remove the file to "
            "train from the start."
        ) from None
    states: dict[int, dict] = {}
    for name, tensor in parts["adam"].items():
        index, key = name.split("/", 1)
        states.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
    return parts["average"], parts["best"], progress


def has_checkpoint(path: str | Path) -> bool:
    """Whether a checkpoint exists."""
    return Path(path).is_file()
