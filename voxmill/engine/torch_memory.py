"""Peak memory of the PyTorch backends; importing this module does not import torch."""

import numpy as np

from voxmill.config.networks import ExportedSettings, MSDNetSettings
from voxmill.engine.backend import Shape
from voxmill.networks import NetworkSettings

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# oneDNN stores channels in blocks of 16 (AVX-512) and pads the last block.
CHANNEL_BLOCK = 16
_UNFOLDED = 5  # channels; measured with torch 2.13
# PyTorch gives cuDNN no tensor with more elements than this: what it then runs instead copies each
# input channel 27 times.
MOST_ELEMENTS = 2**31 - 1
# What no machine has: the plan of a box that a backend can't evaluate at once.
IMPOSSIBLE = 2**62


def plain_predict_bytes(settings: NetworkSettings, box_shape: Shape, precision: str) -> int:
    """Peak bytes of `plain_run` on a CPU: all feature maps, and one layer's copies in oneDNN.

    oneDNN stores input and result of a convolution in blocks of channels. For up to `_UNFOLDED`
    input channels PyTorch unfolds each into 27 columns instead.
    """
    size = BYTES[precision] * int(np.prod(box_shape))
    if isinstance(settings, ExportedSettings):
        multiple = settings.shape_multiple
        edges = [-(-n // multiple) * multiple for n in box_shape]
        return settings.bytes_per_voxel * int(np.prod(edges)) * BYTES[precision] // 4
    channels = settings.channels_before(settings.depth)
    seen = settings.channels_before(settings.depth - 1)
    scratch = _blocked(seen) + _blocked(settings.width) + settings.width
    few = [n for n in map(settings.channels_before, range(settings.depth)) if n <= _UNFOLDED]
    # Later channels have not been written then, so the system has not given them memory.
    unfolded = 28 * max(few, default=0) + settings.width
    return size * max(channels + scratch, channels + 2 * settings.outputs, unfolded)


def fast_predict_bytes(settings: MSDNetSettings, box_shape: Shape, precision: str) -> int:
    """Peak bytes of `fast_run` on a CPU: all slots, and one convolution's copies in oneDNN."""
    size = BYTES[precision] * int(np.prod(box_shape))
    cycle = min(len(settings.dilations), settings.depth)
    pushes = (settings.depth - 1) // cycle
    inner = (cycle - 1) * settings.width
    scratch = _blocked(inner) + (_blocked(settings.width) if inner >= CHANNEL_BLOCK else 0)
    scratch += settings.width
    for source, cycles in ((settings.inputs, pushes + 1), (cycle * settings.width, pushes)):
        target = cycles * settings.width
        # From few channels oneDNN writes the plain result, else blocks first and then that.
        result = target if source < CHANNEL_BLOCK else _blocked(target) + target
        scratch = max(scratch, _blocked(source) + result)
    return size * (settings.depth * settings.width + settings.outputs * 2 + scratch)


def plain_gpu_predict_bytes(settings: NetworkSettings, box_shape: Shape, precision: str) -> int:
    """Peak bytes of `plain_run` on a GPU, or `IMPOSSIBLE`; by arithmetic, not measured.

    A layer reads the first channels of one array of all channels in place: they are contiguous,
    so that cuDNN needs no copy in float32, and the result of one layer is all that is added. The
    tensor cores of half precision want the channels last: cuDNN then copies what a layer reads,
    with channels filled up to a multiple of 8. At depth 100, a voxel takes 4 (input) + 404 (all
    channels) + 4 (a layer, or the logits) + 4 (logits in float32) = 416 bytes in float32, and 4 + 2
    + 202 + 2 + 4 + 2 (104 + 8) = 438 in float16.
    """
    size, voxels = BYTES[precision], int(np.prod(box_shape))
    if isinstance(settings, ExportedSettings):
        return plain_predict_bytes(settings, box_shape, precision)
    channels = settings.channels_before(settings.depth)
    if channels * voxels > MOST_ELEMENTS:
        return IMPOSSIBLE
    needed = size * (channels + max(settings.width, settings.outputs))
    needed += 4 * (settings.inputs + settings.outputs)
    if size < 4:
        copied = _filled(settings.channels_before(settings.depth - 1), 8)
        needed += size * (settings.inputs + copied + _filled(settings.width, 8))
    return voxels * needed


def fast_gpu_predict_bytes(settings: MSDNetSettings, box_shape: Shape, precision: str) -> int:
    """Peak bytes of `fast_run` on a GPU, or `IMPOSSIBLE`; by arithmetic, not measured.

    There are slots for all layers, the input, the logits twice (a cycle's part and their sum), and
    the result of the largest convolution: at depth 100 and dilations 1 to 10, 4 (100 + 1 + 2 + 10)
    = 452 bytes a voxel.
    """
    voxels = int(np.prod(box_shape))
    cycle = min(len(settings.dilations), settings.depth)
    result = -(-settings.depth // cycle) * settings.width
    if max(result, cycle * settings.width, settings.inputs) * voxels > MOST_ELEMENTS:
        return IMPOSSIBLE
    slots = settings.depth * settings.width
    return BYTES[precision] * voxels * (slots + settings.inputs + 2 * settings.outputs + result)


def _blocked(channels: int) -> int:
    return _filled(channels, CHANNEL_BLOCK)


def _filled(channels: int, multiple: int) -> int:
    return -(-channels // multiple) * multiple
