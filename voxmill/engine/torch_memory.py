"""Peak memory of the PyTorch backends; importing this module does not import torch."""

import numpy as np

from voxmill.networks.settings import ExportedSettings

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# oneDNN keeps channels in blocks of 16 (AVX-512) and pads the last one.
CHANNEL_BLOCK = 16
_UNFOLDED = 5  # measured with torch 2.13


def plain_predict_bytes(settings, box_shape, precision: str) -> int:
    """Peak bytes of `plain_run` on a CPU: all maps, and one layer's copies in oneDNN.

    oneDNN holds input and result of a convolution in blocks of channels. PyTorch unfolds up to
    `_UNFOLDED` maps into 27 columns each instead.
    """
    size = BYTES[precision] * int(np.prod(box_shape))
    if isinstance(settings, ExportedSettings):
        multiple = settings.shape_multiple
        edges = [-(-n // multiple) * multiple for n in box_shape]
        return settings.bytes_per_voxel * int(np.prod(edges)) * BYTES[precision] // 4
    maps = settings.maps_before(settings.depth)
    seen = settings.maps_before(settings.depth - 1)
    scratch = _blocked(seen) + _blocked(settings.width) + settings.width
    few = [n for n in map(settings.maps_before, range(settings.depth)) if n <= _UNFOLDED]
    # At that time later maps have not been touched, so the system has not given their pages.
    unfolded = 28 * max(few, default=0) + settings.width
    return size * max(maps + scratch, maps + 2 * settings.outputs, unfolded)


def fast_predict_bytes(settings, box_shape, precision: str) -> int:
    """Peak bytes of `fast_run` on a CPU: all slots, and one convolution's copies in oneDNN."""
    size = BYTES[precision] * int(np.prod(box_shape))
    cycle = min(len(settings.dilations), settings.depth)
    pushes = (settings.depth - 1) // cycle
    inner = (cycle - 1) * settings.width
    scratch = _blocked(inner) + (_blocked(settings.width) if inner >= CHANNEL_BLOCK else 0)
    scratch += settings.width
    for source, cycles in ((settings.inputs, pushes + 1), (cycle * settings.width, pushes)):
        target = cycles * settings.width
        # From few maps oneDNN writes the result as it is, else in blocks and then as it is.
        result = target if source < CHANNEL_BLOCK else _blocked(target) + target
        scratch = max(scratch, _blocked(source) + result)
    return size * (settings.depth * settings.width + settings.outputs * 2 + scratch)


def _blocked(channels: int) -> int:
    return -(-channels // CHANNEL_BLOCK) * CHANNEL_BLOCK
