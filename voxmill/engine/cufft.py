"""Transforms of volumes in place: by cuFFT itself on a GPU, by torch.fft elsewhere.

`torch.fft.irfftn` copies its input each time, because cuFFT overwrites it; here it may. cuFFT is
the library that PyTorch has loaded already. A feature map and its spectrum share their memory: a
row of `2 * columns` real numbers, of which the first `length_x` count, becomes a row of `columns`
complex ones. See "Data layout" in NVIDIA's documentation of cuFFT.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch

logger = logging.getLogger(__name__)

_C2C, _R2C, _C2R = 0x29, 0x2A, 0x2C
_PROBLEMS = {2: "CUFFT_ALLOC_FAILED", 5: "CUFFT_INTERNAL_ERROR", 8: "CUFFT_INVALID_SIZE"}


class Transforms(Protocol):
    """Transforms of one shape; neither divides by the size."""

    def inverse(self, spectrum: torch.Tensor, /) -> torch.Tensor:
        """The spectrum (z, y, columns) becomes a volume (z, y, 2 * columns) in its memory."""
        ...

    def forward(self, real: torch.Tensor, /) -> None:
        """A volume as of `inverse` becomes its spectrum again."""
        ...


def transforms(shape: tuple[int, int, int], device: torch.device) -> Transforms:
    """The transforms of volumes of a shape on a device."""
    found = library(torch.version.cuda) if device.type == "cuda" else None
    return TorchTransforms(shape) if found is None else CufftTransforms(shape, device, found)


def plane_transforms(shape: tuple[int, int, int], device: torch.device) -> Transforms:
    """The transforms along z and y alone, of spectra (z, y, columns) on a device.

    `inverse` returns the spectra of rows along x, and `forward` takes these.
    """
    found = library(torch.version.cuda) if device.type == "cuda" else None
    return TorchPlanes() if found is None else CufftPlanes(shape, device, found)


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


class TorchPlanes:
    """Along z and y by torch.fft, through copies."""

    def inverse(self, spectrum: torch.Tensor) -> torch.Tensor:
        """See `plane_transforms`."""
        return spectrum.copy_(torch.fft.ifft2(spectrum, dim=(0, 1), norm="forward"))

    def forward(self, rows: torch.Tensor) -> None:
        """See `plane_transforms`."""
        rows.copy_(torch.fft.fft2(rows, dim=(0, 1)))


class _Cufft:
    """Plans of cuFFT that share one workspace.

    Parameters
    ----------
    device : torch.device
    library : CDLL
        cuFFT.

    Raises
    ------
    RuntimeError
        If cuFFT refuses; where its memory does not suffice, the message has "ALLOC_FAILED".
    """

    def __init__(self, device: torch.device, library: Any) -> None:
        self._library, self._device = library, device
        self._plans: dict[int, ctypes.c_int] = {}
        self._bytes = 0

    def _plan(
        self, kind: int, lengths: Sequence[int], layouts: Sequence[Sequence[int]], batch: int = 1
    ) -> None:
        """Make a plan for one array, or for `batch` that alternate number by number.

        `layouts` are the lengths that the arrays before and after have in memory.
        """
        plan, size, rank = ctypes.c_int(), ctypes.c_size_t(), len(lengths)
        self._call("Create", ctypes.byref(plan))
        self._plans[kind] = plan
        cuda = self._device.type == "cuda"
        stream = torch.cuda.current_stream(self._device).cuda_stream if cuda else 0
        self._call("SetAutoAllocation", plan, ctypes.c_int(0))
        self._call("SetStream", plan, ctypes.c_void_p(stream))
        axes = ctypes.c_longlong * rank
        described: list[Any] = []
        for layout in layouts:
            distance = math.prod(layout) if batch == 1 else 1
            described += [axes(*layout), ctypes.c_longlong(batch), ctypes.c_longlong(distance)]
        self._call(
            "MakePlanMany64", plan, ctypes.c_int(rank), axes(*lengths), *described,
            ctypes.c_int(kind), ctypes.c_longlong(batch), ctypes.byref(size),
        )  # fmt: skip
        self._bytes = max(self._bytes, size.value)

    def _allocate(self) -> None:
        """Make the workspace, once all plans are made."""
        self._workspace = torch.empty(self._bytes, dtype=torch.uint8, device=self._device)
        for plan in self._plans.values():
            self._call("SetWorkArea", plan, ctypes.c_void_p(self._workspace.data_ptr()))

    def _in_place(self, name: str, kind: int, numbers: torch.Tensor, *arguments: Any) -> None:
        address = ctypes.c_void_p(numbers.data_ptr())
        self._call(name, self._plans[kind], address, address, *arguments)

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, f"cufft{name}")(*arguments)
        if code:
            raise RuntimeError(f"cufft{name}: {_PROBLEMS.get(code, 'error')} ({code})")

    def __del__(self) -> None:
        for plan in self._plans.values():
            self._library.cufftDestroy(plan)


class CufftTransforms(_Cufft):
    """By cuFFT, in place; parameters and errors as of `_Cufft`.

    `shape` has the lengths z, y, x.
    """

    def __init__(self, shape: tuple[int, int, int], device: torch.device, library: Any) -> None:
        super().__init__(device, library)
        z, y, x = shape
        columns = x // 2 + 1
        real, spectrum = (z, y, 2 * columns), (z, y, columns)
        self._plan(_R2C, shape, (real, spectrum))
        self._plan(_C2R, shape, (spectrum, real))
        self._allocate()

    def inverse(self, spectrum: torch.Tensor) -> torch.Tensor:
        """See `Transforms`."""
        self._in_place("ExecC2R", _C2R, spectrum)
        return real_view(spectrum)

    def forward(self, real: torch.Tensor) -> None:
        """See `Transforms`."""
        self._in_place("ExecR2C", _R2C, real)


class CufftPlanes(_Cufft):
    """Along z and y by cuFFT, in place; parameters and errors as of `_Cufft`.

    `shape` has the lengths z, y, x of the volume. There are as many planes as a row has
    frequencies; neighbours along x belong to different ones.
    """

    def __init__(self, shape: tuple[int, int, int], device: torch.device, library: Any) -> None:
        super().__init__(device, library)
        self._plan(_C2C, shape[:2], (shape[:2], shape[:2]), shape[2] // 2 + 1)
        self._allocate()

    def inverse(self, spectrum: torch.Tensor) -> torch.Tensor:
        """See `plane_transforms`."""
        self._in_place("ExecC2C", _C2C, spectrum, ctypes.c_int(1))
        return spectrum

    def forward(self, rows: torch.Tensor) -> None:
        """See `plane_transforms`."""
        self._in_place("ExecC2C", _C2C, rows, ctypes.c_int(-1))
