"""The PyTorch backends: the reference, and the same sums in an order that oneDNN does fast."""

import contextlib

import numpy as np
import torch
from torch.nn import functional

from voxmill.networks.msdnet import MSDNet


@contextlib.contextmanager
def torch_threads(threads: int):
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


def _run(function, network, volume, device, precision, threads) -> np.ndarray:
    """Call `function(network, batch)` and return its result, mostly the sigmoid, in float32."""
    kind = getattr(torch, precision)
    moved = network if kind == torch.float32 and device == "cpu" else None
    if moved is None:
        import copy

        moved = copy.deepcopy(network).to(device, kind)
    # cuDNN would round float32 to TensorFloat-32, which has the mantissa of a float16.
    exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    with torch_threads(threads), torch.no_grad(), exact:
        batch = torch.from_numpy(volume)[None].to(device, kind)
        result = function(moved, batch)[0].float()
        result.sigmoid_()
        return result.cpu().numpy()


# --- the reference ---------------------------------------------------------------------------


def plain_available(network, device: str) -> str | None:
    """PyTorch runs every network on every device that torch sees."""
    return _device_problem(device)


def plain_run(network, volume, device, precision, threads) -> np.ndarray:
    """Evaluate the network by its own `forward`: the reference."""
    return _run(lambda net, batch: net(batch), network, volume, device, precision, threads)


# --- right-looking ----------------------------------------------------------------------------


def fast_available(network, device: str) -> str | None:
    """The right-looking order is written for MS-D networks."""
    if not isinstance(network, MSDNet):
        return f"it evaluates MS-D networks, not {type(network).__name__}"
    return _device_problem(device)


def fast_run(network, volume, device, precision, threads) -> np.ndarray:
    """Evaluate an MS-D network cycle by cycle, see `right_looking`."""
    return _run(right_looking, network, volume, device, precision, threads)


def right_looking(network: MSDNet, volume: torch.Tensor) -> torch.Tensor:
    """Logits of a batch, each cycle of maps pushed at once into all later layers.

    As soon as a cycle of maps is complete, its part of every later layer of one dilation is one
    convolution with many output maps, which libraries compute some ten times faster than many
    with one. A layer's slot in the buffer holds its partial sums first and its map later.

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
                weight = network.weights[layer][:, settings.maps_before(start) :]
                mine += _dilated(maps, weight, settings.dilation(layer))
            mine += network.biases[layer][:, None, None, None]
            mine.relu_()
        maps = slots[:, start * width : stop * width]
        first, last = settings.maps_before(start), settings.maps_before(stop)
        logits += functional.conv3d(maps, _pointwise(network.final_weight[:, first:last]))
        _push(network, slots, maps, first_map=first, first_layer=stop)
    return logits


def _push(network, slots, maps, first_map: int, first_layer: int) -> None:
    """Add what `maps` give to all layers from `first_layer` on, one convolution a dilation."""
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


def _dilated(maps, weight, dilation: int):
    """Zero-padded dilated convolution, through oneDNN where torch would unfold the input."""
    reach = (dilation,) * 3
    if maps.device.type == "cpu" and torch.backends.mkldnn.is_available():
        return torch.mkldnn_convolution(
            maps.contiguous(), weight.contiguous(), None, reach, (1, 1, 1), reach, 1
        )
    return functional.conv3d(maps, weight, padding=dilation, dilation=dilation)


def _pointwise(weight):
    return weight[:, :, None, None, None]
