"""The native engine's second path: dilated convolutions as they stand, row by row.

It does 27 multiply-adds a voxel and pair of maps where the Fourier domain does few, but needs no
transforms and no margin: it wins for shallow networks and small boxes. See `native/stencil.cpp`.
"""

import ctypes

import numpy as np

from voxmill.engine import fourier, transforms
from voxmill.engine.build import NativeShape, load, native_dilations, native_shape

_LANES = 16  # of the widest registers; only the memory plan needs it, as an upper bound
# Nanoseconds by bytes of a vector, each fitted to `python benchmarks/stencil.py` on one CPU: of a
# voxel, pair of maps and tap here (a, b: a + b / width; four maps of a layer share what they read),
# and of a padded voxel and map in the Fourier domain (c, d: c + d x maps).
_COSTS = {64: (0.014, 0.012, 1.63, 0.0183), 32: (0.035, 0.06, 3.35, 0.055)}


class _Settings(NativeShape):
    _fields_ = (("dilations", ctypes.POINTER(ctypes.c_int32)),)


def available(network, device: str) -> str | None:
    """None if the stencil runs this network here, else the reason why not."""
    if reason := fourier.available(network, device):
        return reason
    library = load("stencil")
    return library if isinstance(library, str) else None


def unsuited(settings, box_shape) -> str | None:
    """None where the stencil is faster than the Fourier domain, else the reason why it is not.

    A row is paid for in whole vectors. CPUs with shorter vectors than any measured count as AVX2.
    """
    library = load("stencil")
    vector_bytes = 32 if isinstance(library, str) else library.voxmill_vector_bytes()
    a, b, c, d = _COSTS.get(vector_bytes, _COSTS[32])
    maps = settings.maps_before(settings.depth)
    pairs = settings.width * sum(settings.maps_before(i) for i in range(settings.depth))
    lanes = vector_bytes // 4
    voxels = box_shape[0] * box_shape[1] * -(-box_shape[2] // lanes) * lanes
    direct = 27 * (a + b / min(settings.width, 4)) * pairs * voxels
    padded = float(np.prod(transforms.lengths(settings, tuple(box_shape))))
    if direct < (c + d * maps) * maps * padded:
        return None
    return "the Fourier domain is faster for this depth and box"


def run(network, volume, device: str, precision: str, threads: int) -> np.ndarray:
    """Probabilities; see `voxmill.engine.backends.forward`.

    Raises
    ------
    MemoryError
        If the system does not give the memory.
    """
    settings, library = network.settings, load("stencil")
    shape = native_shape(settings, volume.shape[1:])
    native = _Settings(*shape, native_dilations(settings))
    volume = np.ascontiguousarray(volume, dtype=np.float32)
    logits = np.empty((settings.outputs, *volume.shape[1:]), np.float32)
    arrays = (fourier.flat_parameters(network), volume, logits)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in arrays]
    if library.voxmill_stencil(ctypes.byref(native), *pointers, ctypes.c_int(threads)):
        raise MemoryError("native stencil: out of memory")
    return fourier.sigmoid(logits)


def predict_bytes(settings, box_shape, precision: str) -> int:
    """Peak bytes of one evaluation: all maps, their rows with a margin, and the result."""
    z, y, x = box_shape
    margin = max((d for d in settings.dilations[: settings.depth] if d < x), default=0)
    row = -(-margin // _LANES) * _LANES + -(-x // _LANES) * _LANES
    maps = settings.maps_before(settings.depth)
    return 4 * z * y * (maps * row + settings.outputs * x)
