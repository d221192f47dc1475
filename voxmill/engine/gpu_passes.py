"""From the sums of a feature map to its spectrum: inverse transform, bias, ReLU, transform.

Two ways with the same functions: `Separate` has cuFFT transform all three axes, and a kernel
between the two directions; `Fused` has cuFFT transform z and y, and one kernel (`triton_rows`) do
all that lies between.
"""

from __future__ import annotations

from typing import Protocol

import torch

from voxmill.engine import gpu_rows
from voxmill.engine.cufft import plane_transforms, real_view, transforms
from voxmill.engine.gpu_spectra import SpectrumSizes

TILE = (16, 128)  # rows and columns of a feature map or spectrum that one program handles


def tiles(rows: int, columns: int) -> tuple[int, int]:
    """Programs that cover rows and columns."""
    return -(-rows // TILE[0]), -(-columns // TILE[1])


class Passes(Protocol):
    """The passes over a feature map; `sums` (z, y, columns) are complex and its memory."""

    def take(self, volume: torch.Tensor, sums: torch.Tensor) -> None:
        """Put the spectrum of a volume (z, y, x) of the box into `sums`."""
        ...

    def activate(self, sums: torch.Tensor, bias: torch.Tensor) -> None:
        """Replace the sums of a feature map by its spectrum; `bias[0]` is its bias."""
        ...

    def finish(
        self, sums: torch.Tensor, bias: torch.Tensor, weights: torch.Tensor, logits: torch.Tensor
    ) -> None:
        """Add a feature map of the last layer, times `weights[:, 0]`, to the logits."""
        ...

    def add(self, sums: torch.Tensor, logits: torch.Tensor) -> None:
        """Add sums themselves to logits (z, y, x)."""
        ...


class Separate:
    """All axes by cuFFT, and a kernel between."""

    def __init__(self, sizes: SpectrumSizes, device: torch.device) -> None:
        from voxmill.engine import triton_fourier

        self._kernel, self._sizes = triton_fourier.activate, sizes
        self._transforms = transforms(sizes.padded, device)

    def take(self, volume: torch.Tensor, sums: torch.Tensor) -> None:
        """See `Passes`."""
        z, y, x = volume.shape
        real = real_view(sums.zero_())
        real[:z, :y, :x] = volume
        self._transforms.forward(real)

    def activate(self, sums: torch.Tensor, bias: torch.Tensor) -> None:
        """See `Passes`."""
        real = self._transforms.inverse(sums)
        self._run(real, bias, bias[:, None], real[None], 0)
        self._transforms.forward(real)

    def finish(
        self, sums: torch.Tensor, bias: torch.Tensor, weights: torch.Tensor, logits: torch.Tensor
    ) -> None:
        """See `Passes`."""
        self._run(self._transforms.inverse(sums), bias, weights, logits, len(logits))

    def _run(
        self,
        real: torch.Tensor,
        bias: torch.Tensor,
        weights: torch.Tensor,
        logits: torch.Tensor,
        outputs: int,
    ) -> None:
        sizes = self._sizes
        self._kernel[tiles(sizes.lines, sizes.padded[2])](
            real, logits, bias, weights, sizes.scale, *sizes.padded, 2 * sizes.columns, *sizes.box,
            sizes.voxels, weights.stride(0), outputs, ROWS=TILE[0], COLUMNS=TILE[1],
        )  # fmt: skip

    def add(self, sums: torch.Tensor, logits: torch.Tensor) -> None:
        """See `Passes`."""
        z, y, x = logits.shape
        logits.add_(self._transforms.inverse(sums)[:z, :y, :x], alpha=self._sizes.scale)


class Fused:
    """z and y by cuFFT, all between by one kernel; products of numbers in TensorFloat-32."""

    def __init__(self, sizes: SpectrumSizes, device: torch.device) -> None:
        from voxmill.engine import triton_rows

        assert sizes.factors is not None  # the plan of the memory refuses longer boxes
        self._kernel, self._sizes, self._factors = triton_rows.activate_rows, sizes, sizes.factors
        self._planes = plane_transforms(sizes.padded, device)
        self._tables = gpu_rows.tables(self._factors, device)
        self._one = torch.ones(1, 1, device=device)

    def take(self, volume: torch.Tensor, sums: torch.Tensor) -> None:
        """See `Passes`."""
        z, y, _ = volume.shape
        sums.zero_()
        for number in range(z):  # plane by plane, as torch makes a copy
            sums[number, :y] = torch.fft.rfft(volume[number], self._sizes.padded[2])
        self._planes.forward(sums)

    def activate(self, sums: torch.Tensor, bias: torch.Tensor) -> None:
        """See `Passes`."""
        self._run(sums, bias, self._one, bias)
        self._planes.forward(sums)

    def finish(
        self, sums: torch.Tensor, bias: torch.Tensor, weights: torch.Tensor, logits: torch.Tensor
    ) -> None:
        """See `Passes`."""
        self._run(sums, bias, weights, logits, len(logits))

    def add(self, sums: torch.Tensor, logits: torch.Tensor) -> None:
        """See `Passes`."""
        self._run(sums, self._one, self._one, logits, 1, activate=False)

    def _run(
        self,
        sums: torch.Tensor,
        bias: torch.Tensor,
        weights: torch.Tensor,
        logits: torch.Tensor,
        outputs: int = 0,
        activate: bool = True,
    ) -> None:
        sizes, shape = self._sizes, gpu_rows.shape(self._factors)
        rows = torch.view_as_real(self._planes.inverse(sums))
        self._kernel[(-(-sizes.lines // shape["ROWS"]),)](
            rows, logits, bias, weights, self._tables, sizes.scale, *self._factors, sizes.lines,
            sizes.padded[1], sizes.columns, *sizes.box, sizes.voxels, weights.stride(0), outputs,
            ACTIVATE=activate, TO_LOGITS=outputs > 0, ROUND=sizes.precision == "float16", **shape,
        )  # fmt: skip
