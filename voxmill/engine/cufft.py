"""Transforms of real volumes in place: by cuFFT itself on a GPU, by torch.fft elsewhere.

`torch.fft.irfftn` copies its input each time, because cuFFT overwrites it; here it may. cuFFT is
the library that PyTorch has loaded already. A feature map and its spectrum share their memory: a
row of `2 * columns` real numbers, of which the first `length_x` count, becomes a row of `columns`
complex ones. See "Data layout" in NVIDIA's documentation of cuFFT.
"""

from __future__ import annotations

import ctypes
import functools
import logging
from collections.abc import Sequence
from typing import Any, Protocol

import torch

logger = logging.getLogger(__name__)

_R2C, _C2R = 0x2A, 0x2C
_PROBLEMS = {2: "CUFFT_ALLOC_FAILED", 5: "CUFFT_INTERNAL_ERROR", 8: "CUFFT_INVALID_SIZE"}


class Transforms(Protocol):
    """Transforms of one shape; neither divides by the size."""

    def inverse(self, spectrum: torch.Tensor) -> torch.Tensor:
        """The spectrum (z, y, columns) becomes a volume (z, y, 2 * columns) in its memory."""
        ...

    def forward(self, real: torch.Tensor) -> None:
        """A volume as of `inverse` becomes its spectrum again."""
        ...


def transforms(shape: tuple[int, int, int], device: torch.device) -> Transforms:
    """The transforms of volumes of a shape on a device."""
    found = library(torch.version.cuda) if device.type == "cuda" else None
    return TorchTransforms(shape) if found is None else CufftTransforms(shape, device, found)


@functools.cache
def library(cuda: str | None) -> Any:
    """The cuFFT of a CUDA version; None where it can't be loaded, which is logged once."""
    name = f"libcufft.so.{int((cuda or '1').split('.')[0]) - 1}"
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        logger.warning("%s: %s; transforms by torch.fft copy more", name, error)
        return None


def real_view(spectrum: torch.Tensor) -> torch.Tensor:
    """The memory of a spectrum (z, y, columns) as real numbers (z, y, 2 * columns)."""
    return torch.view_as_real(spectrum).flatten(2)


class TorchTransforms:
    """By torch.fft, through copies.

    Parameters
    ----------
    shape : (3,) int
        Lengths z, y, x.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape

    def inverse(self, spectrum: torch.Tensor) -> torch.Tensor:
        """See `Transforms`."""
        # With a leading axis torch lets cuFFT transform all three axes at once; without it torch
        # copies for each (`use_optimized_cufft_path` in torch's SpectralOps.cpp).
        found = torch.fft.irfftn(spectrum[None], self.shape, norm="forward")[0]
        real = real_view(spectrum)
        real[..., : self.shape[2]] = found
        return real

    def forward(self, real: torch.Tensor) -> None:
        """See `Transforms`."""
        found = torch.fft.rfftn(real[None, ..., : self.shape[2]], self.shape)[0]
        real.copy_(real_view(found.contiguous()))


class CufftTransforms:
    """By cuFFT, in place; both directions share one workspace.

    Parameters
    ----------
    shape : (3,) int
        Lengths z, y, x.
    device : torch.device
    library : CDLL
        cuFFT.

    Raises
    ------
    RuntimeError
        If cuFFT refuses; where its memory does not suffice, the message has "ALLOC_FAILED".
    """

    def __init__(self, shape: tuple[int, int, int], device: torch.device, library: Any) -> None:
        self._library = library
        self._plans: dict[int, ctypes.c_int] = {}
        stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
        sizes = {kind: self._plan(kind, shape, stream) for kind in (_R2C, _C2R)}
        self._workspace = torch.empty(max(sizes.values()), dtype=torch.uint8, device=device)
        for plan in self._plans.values():
            self._call("SetWorkArea", plan, ctypes.c_void_p(self._workspace.data_ptr()))

    def _plan(self, kind: int, shape: Sequence[int], stream: int) -> int:
        """Make a plan; returns the bytes of its workspace."""
        plan, size = ctypes.c_int(), ctypes.c_size_t()
        self._call("Create", ctypes.byref(plan))
        self._plans[kind] = plan
        z, y, x = shape
        columns = x // 2 + 1
        layouts = {True: (z, y, columns), False: (z, y, 2 * columns)}
        embedded = [(ctypes.c_longlong * 3)(*layouts[c]) for c in (kind == _C2R, kind == _R2C)]
        distances = [z * y * layouts[c][2] for c in (kind == _C2R, kind == _R2C)]
        self._call("SetAutoAllocation", plan, ctypes.c_int(0))
        self._call("SetStream", plan, ctypes.c_void_p(stream))
        self._call(
            "MakePlanMany64", plan, ctypes.c_int(3), (ctypes.c_longlong * 3)(*shape),
            embedded[0], ctypes.c_longlong(1), ctypes.c_longlong(distances[0]),
            embedded[1], ctypes.c_longlong(1), ctypes.c_longlong(distances[1]),
            ctypes.c_int(kind), ctypes.c_longlong(1), ctypes.byref(size),
        )  # fmt: skip
        return size.value

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, f"cufft{name}")(*arguments)
        if code:
            raise RuntimeError(f"cufft{name}: {_PROBLEMS.get(code, 'error')} ({code})")

    def inverse(self, spectrum: torch.Tensor) -> torch.Tensor:
        """See `Transforms`."""
        address = ctypes.c_void_p(spectrum.data_ptr())
        self._call("ExecC2R", self._plans[_C2R], address, address)
        return real_view(spectrum)

    def forward(self, real: torch.Tensor) -> None:
        """See `Transforms`."""
        address = ctypes.c_void_p(real.data_ptr())
        self._call("ExecR2C", self._plans[_R2C], address, address)

    def __del__(self) -> None:
        for plan in self._plans.values():
            self._library.cufftDestroy(plan)
