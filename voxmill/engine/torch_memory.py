"""Peak memory of the PyTorch backends; importing this module does not import torch."""

import numpy as np

from voxmill.config.networks import ExportedSettings, MSDNetSettings
from voxmill.engine.backend import Shape
from voxmill.networks import NetworkSettings

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# oneDNN stores channels in blocks of 16 (AVX-512) and pads the last block.
CHANNEL_BLOCK = 16
_UNFOLDED = 5  # channels; measured with torch 2.13


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


def _blocked(channels: int) -> int:
    return -(-channels // CHANNEL_BLOCK) * CHANNEL_BLOCK
