"""The PyTorch backends: the reference, and the same sums in an order that is fast in oneDNN."""

import contextlib
import copy
import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from voxmill.networks.msdnet import MSDNet
from voxmill.runtime.cards import cudnn_problem

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Set torch's number of CPU threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _device_problem(device: str) -> str | None:
    if device.startswith("cuda") and not torch.cuda.is_available():
        return f"there is no CUDA device for {device}"
    return None


def _run(
    logits: Callable[[Any, torch.Tensor, str], torch.Tensor],
    network: nn.Module,
    volume: np.ndarray,
    device: str,
    precision: str,
    threads: int,
) -> np.ndarray:
    """Probabilities on the host."""
    with torch_threads(threads):
        result = logits(network, torch.from_numpy(volume).to(device), precision)
        probabilities: np.ndarray = result.sigmoid_().cpu().numpy()
        return probabilities


def _logits(
    forward: Callable[[Any, torch.Tensor], torch.Tensor],
    network: nn.Module,
    volume: torch.Tensor,
    precision: str,
) -> torch.Tensor:
    """Float32 logits of one box by `forward(network, batch)`, on the volume's device."""
    kind = getattr(torch, precision)
    if volume.is_cuda and kind != torch.float32:
        warn_of_cudnn()
    moved = network
    if kind != torch.float32 or volume.device.type != "cpu":
        moved = copy.deepcopy(network).to(volume.device, kind)
    # By default cuDNN rounds float32 to TensorFloat-32, which has the mantissa of float16.
    exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    with torch.no_grad(), exact:
        return forward(moved, volume[None].to(kind))[0].float()


@functools.cache
def warn_of_cudnn() -> None:
    """Log, once a process, that this cuDNN should not compute in half precision."""
    if problem := cudnn_problem(torch.backends.cudnn.version()):
        logger.warning("%s.", problem)


# --- the reference ---------------------------------------------------------------------------


def plain_available(network: nn.Module, device: str) -> str | None:
    """None if torch sees the device, else the reason why not; it runs every network."""
    return _device_problem(device)


def plain_run(
    network: nn.Module, volume: np.ndarray, device: str, precision: str, threads: int
) -> np.ndarray:
    """Evaluate the network by its own `forward`: the reference."""
    return _run(plain_logits, network, volume, device, precision, threads)


def plain_logits(network: nn.Module, volume: torch.Tensor, precision: str) -> torch.Tensor:
    """Logits (outputs, z, y, x) of a volume (inputs, z, y, x), on its device."""
    return _logits(lambda net, batch: net(batch), network, volume, precision)


# --- right-looking ----------------------------------------------------------------------------


def fast_available(network: nn.Module, device: str) -> str | None:
    """None for an MS-D network on a device that torch sees, else the reason why not."""
    if not isinstance(network, MSDNet):
        return f"it evaluates MS-D networks, not {type(network).__name__}"
    return _device_problem(device)


def fast_run(
    network: MSDNet, volume: np.ndarray, device: str, precision: str, threads: int
) -> np.ndarray:
    """Evaluate an MS-D network cycle by cycle; see `right_looking`."""
    return _run(fast_logits, network, volume, device, precision, threads)


def fast_logits(network: MSDNet, volume: torch.Tensor, precision: str) -> torch.Tensor:
    """Logits (outputs, z, y, x) of a volume (inputs, z, y, x), on its device."""
    return _logits(right_looking, network, volume, precision)


def right_looking(network: MSDNet, volume: torch.Tensor) -> torch.Tensor:
    """Logits of a batch; each cycle of feature maps is added at once to all later layers.

    As soon as a cycle of feature maps is complete, its contribution to all later layers of one
    dilation is one convolution with many output channels, which libraries compute about ten times
    faster than many convolutions with one. A layer's slot in the buffer holds its partial sums
    first and its feature maps later.

    Parameters
    ----------
    network : MSDNet
    volume : (batch, inputs, z, y, x) float tensor

    Returns
    -------
    (batch, outputs, z, y, x) tensor
    """
    settings = network.settings
    cycle, depth, width = len(settings.dilations), settings.depth, settings.width
    slots = volume.new_zeros(volume.shape[0], depth * width, *volume.shape[2:])
    logits = functional.conv3d(
        volume, _pointwise(network.final_weight[:, : settings.inputs]), network.final_bias
    )
    _push(network, slots, volume, first_map=0, first_layer=0)
    for start in range(0, depth, cycle):
        stop = min(start + cycle, depth)
        for layer in range(start, stop):
            mine = slots[:, layer * width : (layer + 1) * width]
            if layer > start:
                maps = slots[:, start * width : layer * width]
                weight = network.weights[layer][:, settings.channels_before(start) :]
                mine += _dilated(maps, weight, settings.dilation(layer))
            mine += network.biases[layer][:, None, None, None]
            mine.relu_()
        maps = slots[:, start * width : stop * width]
        first, last = settings.channels_before(start), settings.channels_before(stop)
        logits += functional.conv3d(maps, _pointwise(network.final_weight[:, first:last]))
        _push(network, slots, maps, first_map=first, first_layer=stop)
    return logits


def _push(
    network: MSDNet, slots: torch.Tensor, maps: torch.Tensor, first_map: int, first_layer: int
) -> None:
    """Add the contributions of `maps` to all layers from `first_layer` on.

    There is one convolution for each dilation.
    """
    settings = network.settings
    cycle, width = len(settings.dilations), settings.width
    last_map = first_map + maps.shape[1]
    for phase in range(min(cycle, settings.depth - first_layer)):
        layers = range(first_layer + phase, settings.depth, cycle)
        weight = torch.cat([network.weights[i][:, first_map:last_map] for i in layers])
        sums = _dilated(maps, weight, settings.dilation(layers[0]))
        for place, layer in enumerate(layers):
            slots[:, layer * width : (layer + 1) * width] += sums[
                :, place * width : (place + 1) * width
            ]
        del sums  # before the next ones are computed


def _dilated(maps: torch.Tensor, weight: torch.Tensor, dilation: int) -> torch.Tensor:
    """Zero-padded dilated convolution, by oneDNN on CPUs, where torch may unfold the input."""
    reach = (dilation,) * 3
    if maps.device.type == "cpu" and torch.backends.mkldnn.is_available():
        return torch.mkldnn_convolution(
            maps.contiguous(), weight.contiguous(), None, reach, (1, 1, 1), reach, 1
        )
    return functional.conv3d(maps, weight, padding=dilation, dilation=dilation)


def _pointwise(weight: torch.Tensor) -> torch.Tensor:
    return weight[:, :, None, None, None]
