"""The native engine's second backend: direct dilated convolutions, row by row.

It takes 27 multiply-adds for each voxel and pair of feature maps, where the Fourier domain takes
few, but it needs no transforms and no margin: it is faster for shallow networks and small boxes.
See `native/stencil.cpp`.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np

from voxmill.config.networks import MSDNetSettings
from voxmill.engine import fourier, transforms
from voxmill.engine.backend import Shape
from voxmill.engine.build import NativeShape, load, loaded, native_dilations, native_shape
from voxmill.networks.stored import Network, StoredNetwork

if TYPE_CHECKING:
    from voxmill.networks.msdnet import MSDNet

_LANES = 16  # of the widest registers: an upper bound, for the memory plan alone
# Nanoseconds, by bytes of a vector, each fitted to `python benchmarks/stencil.py` on one CPU: here
# a + b / width for a voxel, pair of feature maps and tap (up to four maps of a layer share their
# reads); in the Fourier domain c + d x maps for a padded voxel and feature map.
_COSTS = {64: (0.014, 0.012, 1.63, 0.0183), 32: (0.035, 0.06, 3.35, 0.055)}


class _Settings(NativeShape):
    _fields_ = (("dilations", ctypes.POINTER(ctypes.c_int32)),)


def available(network: Network, device: str) -> str | None:
    """None if the stencil can run this network here, else the reason why not."""
    if reason := fourier.available(network, device):
        return reason
    library = load("stencil")
    return library if isinstance(library, str) else None


def unsuited(settings: MSDNetSettings, box_shape: Shape) -> str | None:
    """None where the stencil is faster than the Fourier domain, else the reason why it is not.

    Rows count in whole vectors. CPUs with shorter vectors than any measured one count as AVX2.
    """
    library = load("stencil")
    vector_bytes = 32 if isinstance(library, str) else library.voxmill_vector_bytes()
    a, b, c, d = _COSTS.get(vector_bytes, _COSTS[32])
    maps = settings.channels_before(settings.depth)
    pairs = settings.width * sum(settings.channels_before(i) for i in range(settings.depth))
    lanes = vector_bytes // 4
    voxels = box_shape[0] * box_shape[1] * -(-box_shape[2] // lanes) * lanes
    direct = 27 * (a + b / min(settings.width, 4)) * pairs * voxels
    padded = float(np.prod(transforms.lengths(settings, tuple(box_shape))))
    if direct < (c + d * maps) * maps * padded:
        return None
    return "the Fourier domain is faster for this depth and box"


def run(
    network: StoredNetwork | MSDNet, volume: np.ndarray, device: str, precision: str, threads: int
) -> np.ndarray:
    """Probabilities; see `voxmill.engine.backends.forward`.

    Raises
    ------
    MemoryError
        If the system does not give the memory.
    """
    settings, library = network.settings, loaded("stencil")
    shape = native_shape(settings, volume.shape[1:])
    native = _Settings(*shape, native_dilations(settings))
    volume = np.ascontiguousarray(volume, dtype=np.float32)
    logits = np.empty((settings.outputs, *volume.shape[1:]), np.float32)
    arrays = (fourier.flat_parameters(network), volume, logits)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in arrays]
    if library.voxmill_stencil(ctypes.byref(native), *pointers, ctypes.c_int(threads)):
        raise MemoryError("native stencil: the system does not give the memory for this box")
    return fourier.sigmoid(logits)


def predict_bytes(settings: MSDNetSettings, box_shape: Shape, precision: str) -> int:
    """Peak bytes of one evaluation: all feature maps, with a margin in each row, and the result."""
    z, y, x = box_shape
    margin = max((d for d in settings.dilations[: settings.depth] if d < x), default=0)
    row = -(-margin // _LANES) * _LANES + -(-x // _LANES) * _LANES
    maps = settings.channels_before(settings.depth)
    return 4 * z * y * (maps * row + settings.outputs * x)
