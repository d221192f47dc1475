"""What both engines for GPUs share; importing this module imports neither torch nor Triton."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import nn

    from voxmill.networks.msdnet import MSDNet

PRECISIONS = ("float32", "float16")
SIZES = {"float32": 4, "float16": 2}
# Three products of TensorFloat-32 numbers give the accuracy of one in float32.
DOT_PRECISION = {"float32": "tf32x3", "float16": "ieee"}


def available(network: nn.Module, device: str, kernels: str) -> str | None:
    """None if an engine with these kernels can run the network on the device, else why not.

    Parameters
    ----------
    network : torch module
    device : str
    kernels : str
        Module with the Triton kernels.
    """
    from voxmill.networks.msdnet import MSDNet

    if not isinstance(network, MSDNet):
        return f"it evaluates MS-D networks, not {type(network).__name__}"
    if not device.startswith("cuda"):
        return f"it runs on cuda, not on {device}"
    import torch

    if not torch.cuda.is_available():
        return f"there is no CUDA device for {device}"
    return kernels_problem(kernels)


def kernels_problem(kernels: str) -> str | None:
    """Why the Triton kernels of a module can't be used, or None.

    A broken installation of Triton raises errors of many types (no package, no driver, no
    compiler); after any of them plain PyTorch is used.
    """
    try:
        importlib.import_module(kernels)
    except Exception as error:
        return f"Triton can't be imported ({type(error).__name__}: {error})"
    return None


@contextlib.contextmanager
def on_device(device: str) -> Iterator[None]:
    """Make a GPU the current one, on which Triton launches its kernels; a CPU changes nothing."""
    import torch

    with torch.no_grad():
        if device.startswith("cuda"):
            with torch.cuda.device(device):
                yield
        else:
            yield


def probabilities(
    logits: Callable[[MSDNet, torch.Tensor, str], torch.Tensor],
    network: MSDNet,
    volume: np.ndarray,
    device: str,
    precision: str,
) -> np.ndarray:
    """Probabilities on the host, from an engine's logits on the device.

    Parameters
    ----------
    logits : function
        The engine: of a network, a volume on the device and a precision.
    network : MSDNet
    volume : (inputs, z, y, x) float32 array
    device, precision : str

    Returns
    -------
    (outputs, z, y, x) float32 array
    """
    import torch

    with on_device(device):
        result = logits(network, torch.from_numpy(volume).to(device), precision)
        host: np.ndarray = result.sigmoid_().cpu().numpy()
        return host


def power_of_two(number: int) -> int:
    """The least power of two that is at least `number`; the edges of Triton's blocks are such."""
    return 1 << max(0, number - 1).bit_length()


def filled_up(number: int, multiple: int) -> int:
    """The least multiple of `multiple` that is at least `number`."""
    return -(-number // multiple) * multiple
