"""Checkpoints: one safetensors file, replaced whole, with everything that a resume needs.

Random numbers need no storing: every step draws from a generator seeded by (seed, step).
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.files import writing

VERSION = "1"


def save_checkpoint(path, network, average, best, optimizer, progress: dict) -> None:
    """Write a checkpoint, whole or not at all.

    Parameters
    ----------
    path : path
    network : torch module
    average, best : dict of str to tensor
        Moving average of the weights, and its best so far.
    optimizer : torch.optim.Adam
    progress : dict
        JSON content: step, history, settings digest and so on.
    """
    tensors = {f"weights/{k}": v for k, v in network.state_dict().items()}
    tensors |= {f"average/{k}": v for k, v in average.items()}
    tensors |= {f"best/{k}": v for k, v in best.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"adam/{index}/{key}": torch.as_tensor(v) for key, v in state.items()}
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    with writing(path) as scratch:
        save_file(tensors, scratch, {"version": VERSION, "progress": json.dumps(progress)})


def load_checkpoint(path, network, optimizer) -> tuple[dict, dict, dict]:
    """Put a checkpoint's weights and moments in place; returns average, best and progress.

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


def has_checkpoint(path) -> bool:
    """Whether there is a checkpoint to resume from."""
    return Path(path).is_file()
