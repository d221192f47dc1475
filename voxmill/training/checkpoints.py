"""Checkpoints: one file with everything that a training needs to resume.

It holds safetensors behind a checksum and is always replaced whole. It holds no state of random
numbers, as each step draws from a generator with the seed (seed, step).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from voxmill.runtime.checked import DamagedFileError, read_checked, write_checked
from voxmill.runtime.errors import VoxmillError

VERSION = "1"
_EXPECTED = "expected a checkpoint of this training"
_REMOVE = "Remove the file to train from the start, or put a copy in its place."


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
    content = save(tensors, {"version": VERSION, "progress": json.dumps(progress)})
    write_checked(path, content)


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
    content = _read(path)
    try:
        progress, tensors = _progress(content), load(content)
        parts: dict[str, dict] = {"weights": {}, "average": {}, "best": {}, "adam": {}}
        for name, tensor in tensors.items():
            part, key = name.split("/", 1)
            parts[part][key] = tensor
        network.load_state_dict(parts["weights"])
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise VoxmillError(f"{path}: {_EXPECTED}, found {error}. {_REMOVE}") from None
    states: dict[int, dict] = {}
    for name, tensor in parts["adam"].items():
        index, key = name.split("/", 1)
        states.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
    return parts["average"], parts["best"], progress


def _read(path: str | Path) -> bytes:
    """The safetensors of a checkpoint that is whole.

    A damaged one ends the training: nothing in it can be used, but hours of work may be lost with
    it, and a copy may exist.
    """
    try:
        return read_checked(path, "checkpoint of this training", _REMOVE)
    except DamagedFileError as error:
        raise VoxmillError(f"{path}: {_EXPECTED}. {error}") from None


def _progress(content: bytes) -> dict[str, Any]:
    # safetensors reads the texts of files alone: length, JSON header, tensors.
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    progress: dict[str, Any] = json.loads(header["__metadata__"]["progress"])
    return progress


def digest_of(path: str | Path) -> str | None:
    """Digest of settings, data and code of a checkpoint; None where it is not whole."""
    try:
        return str(_progress(read_checked(path)).get("digest"))
    except (VoxmillError, KeyError, ValueError):
        return None


def has_checkpoint(path: str | Path) -> bool:
    """Whether a checkpoint exists."""
    return Path(path).is_file()
