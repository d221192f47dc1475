"""The Fourier engine for GPUs: cuFFT through torch.fft, and Triton kernels between transforms.

The algebra is that of the engine for CPUs (`fourier`): each feature map is transformed once, a
dilated convolution is a product of spectra, and the zero boundary is exact. Layers are grouped into
panels. When a panel starts, its layers pull at once from all earlier feature maps, so that a
spectrum is read once a panel; inside of a panel each layer pulls from the few feature maps before
it. The spectra of the kernels are computed on the fly, for a slab of lines at a time
(`triton_fourier`). Each feature map is added to the logits as soon as it is complete, so that only
its spectrum stays in memory.

In float16 each spectrum has a unit of its own. A feature map is not negative after its ReLU, so no
frequency exceeds frequency zero: in a fixed share of that number nothing overflows. Sums,
transforms and logits are float32.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from voxmill.config.networks import MSDNetSettings
from voxmill.engine import gpu
from voxmill.engine.backend import Shape
from voxmill.engine.gpu import filled_up
from voxmill.engine.gpu_spectra import VECTOR, SpectrumSizes
from voxmill.networks.msdnet import MSDNet

KERNELS = "voxmill.engine.triton_fourier"
_LARGEST = 2.0**14  # the largest number of a float16 spectrum, in its unit; float16 ends at 2^16
_TILE = (16, 128)  # rows and columns of a feature map or spectrum that one program handles
_PRODUCT = 8192  # numbers in the result of one program's matrix product


def available(network: nn.Module, device: str) -> str | None:
    """None if this engine can run the network on the device, else the reason why not."""
    return gpu.available(network, device, KERNELS)


def _tiles(rows: int, columns: int) -> tuple[int, int]:
    return -(-rows // _TILE[0]), -(-columns // _TILE[1])


def predict_bytes(settings: MSDNetSettings, box_shape: Shape, precision: str) -> int:
    """Peak bytes of `run` on the device: spectra, a panel's sums, and one feature map's transform.

    While a feature map is transformed, memory holds the map, its spectrum (or a copy of its sums,
    which cuFFT overwrites), and the scratch of cuFFT, counted as one spectrum.
    """
    z, y, x = box_shape
    sizes = SpectrumSizes(settings, (z, y, x), precision)
    size = gpu.SIZES[precision]
    spectrum = 8 * sizes.lines * sizes.columns
    total = size * (2 * sizes.lines * sizes.row_stride * sizes.stored_maps)
    total += sizes.panel_layers * settings.width * spectrum + size * sizes.table_numbers()
    total += 4 * int(np.prod(sizes.padded)) + 2 * spectrum
    return total + 4 * (settings.outputs + settings.inputs) * int(np.prod(box_shape))


def run(
    network: MSDNet, volume: np.ndarray, device: str, precision: str, threads: int
) -> np.ndarray:
    """Probabilities; see `voxmill.engine.backends.forward`."""
    return gpu.probabilities(logits, network, volume, device, precision)


def logits(network: MSDNet, volume: torch.Tensor, precision: str = "float32") -> torch.Tensor:
    """Logits of one box, on the volume's device.

    Parameters
    ----------
    network : MSDNet
    volume : (inputs, z, y, x) float32 tensor
    precision : str
        Storage of the spectra, "float32" or "float16".

    Returns
    -------
    (outputs, z, y, x) float32 tensor
    """
    return _Evaluation(network, volume, precision).logits()


# With a leading axis torch lets cuFFT transform all three axes at once; without it torch copies the
# array for each axis (`use_optimized_cufft_path` in torch's SpectralOps.cpp).


def _forward(real: torch.Tensor, padded: Shape) -> torch.Tensor:
    """Spectrum of a feature map that is padded with zeros."""
    spectrum: torch.Tensor = torch.fft.rfftn(real[None], padded)[0].contiguous()
    return spectrum


def _inverse(spectrum: torch.Tensor, padded: Shape) -> torch.Tensor:
    """Inverse transform without the division by the size: `activate` scales in its own pass."""
    real: torch.Tensor = torch.fft.irfftn(spectrum[None], padded, norm="forward")[0].contiguous()
    return real


class _Evaluation:
    """The evaluation of one box, layer by layer."""

    def __init__(self, network: MSDNet, volume: torch.Tensor, precision: str) -> None:
        from voxmill.engine import triton_fourier

        self.kernels = triton_fourier
        self.volume, self.device = volume, volume.device
        z, y, x = volume.shape[1:]
        self.sizes = SpectrumSizes(network.settings, (z, y, x), precision)
        self.settings = network.settings
        self.precision, self.kind = precision, getattr(torch, precision)
        self.weights = [self._moved(weight) for weight in network.weights]
        self.biases = [self._moved(bias) for bias in network.biases]
        self.final_weight = self._moved(network.final_weight)
        self.final_bias = self._moved(network.final_bias)
        sizes = self.sizes
        stored = (sizes.stored_maps, 2, sizes.lines, sizes.row_stride)
        self.spectra = torch.zeros(stored, dtype=self.kind, device=self.device)
        self.units = torch.ones(sizes.stored_maps, device=self.device)
        panel_maps = sizes.panel_layers * self.settings.width
        self.sums = self._empty((panel_maps, *sizes.padded[:2], sizes.columns), torch.complex64)
        self.table = self._empty((sizes.table_numbers(),), self.kind)
        self.waves = [self._waves(axis) for axis in range(3)]
        # The row of `waves` for each feature map. Made once: a copy to a GPU waits for all work
        # before it.
        cycle, width = len(self.settings.dilations), self.settings.width
        rows = torch.arange(self.settings.depth, dtype=torch.int32) % cycle
        self.phases = rows.repeat_interleave(width).to(self.device)
        self.result = self.final_bias[:, None, None, None].repeat(1, *sizes.box)

    def _moved(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().to(self.device, torch.float32).contiguous()

    def _empty(self, shape: Shape, kind: torch.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=kind, device=self.device)

    def _waves(self, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines (dilation of the cycle, frequency) of a step along an axis."""
        length = self.sizes.padded[axis]
        count = self.sizes.columns if axis == 2 else length
        steps = np.outer(self.settings.dilations, np.arange(count)) % length
        angles = 2.0 * np.pi * steps / length
        cosines, sines = (
            torch.from_numpy(f(angles).astype(np.float32)).to(self.device) for f in (np.cos, np.sin)
        )
        return cosines, sines

    def logits(self) -> torch.Tensor:
        settings, width, layers = self.settings, self.settings.width, self.sizes.panel_layers
        for number in range(settings.inputs):
            self._take_input(number)
        del self.volume
        for start in range(0, settings.depth, layers):
            stop = min(start + layers, settings.depth)
            self._pull(range(start, stop), 0, settings.channels_before(start), self.sums, add=False)
            for layer in range(start, stop):
                sums = self.sums[(layer - start) * width :]
                if layer > start:
                    first, last = settings.channels_before(start), settings.channels_before(layer)
                    self._pull(range(layer, layer + 1), first, last, sums, add=True)
                for place in range(width):
                    self._finish(layer, place, sums[place])
        return self.result

    def _take_input(self, number: int) -> None:
        """Store the spectrum of an input, and add its part to the logits."""
        volume = self.volume[number]
        for output, weight in enumerate(self.final_weight[:, number]):
            self.result[output].addcmul_(volume, weight)
        largest = volume.abs().sum(dtype=torch.float64).float()
        self._store(_forward(volume, self.sizes.padded), number, largest)

    def _finish(self, layer: int, place: int, sums: torch.Tensor) -> None:
        """Turn the sums of a feature map into its part of the logits and its spectrum."""
        sizes, settings = self.sizes, self.settings
        real = _inverse(sums, sizes.padded)
        number = settings.channels_before(layer) + place
        self.kernels.activate[_tiles(sizes.lines, sizes.padded[2])](
            real, self.result, self.biases[layer][place:], self.final_weight[:, number:],
            1.0 / real.numel(), *sizes.padded, *sizes.box, int(np.prod(sizes.box)),
            self.final_weight.stride(0), settings.outputs, ROWS=_TILE[0], COLUMNS=_TILE[1],
        )  # fmt: skip
        if number < sizes.stored_maps:
            spectrum = _forward(real, sizes.padded)
            del real
            self._store(spectrum, number, spectrum[0, 0, 0].real)

    def _store(self, spectrum: torch.Tensor, number: int, largest: torch.Tensor) -> None:
        """Keep a spectrum of which no number exceeds `largest`."""
        sizes = self.sizes
        if self.precision == "float16":
            # A feature map that is zero everywhere, or NaN, has a unit of one.
            self.units[number] = torch.where(largest > 0, largest / _LARGEST, 1.0)
        self.kernels.store_spectrum[_tiles(sizes.lines, sizes.columns)](
            self.spectra[number], torch.view_as_real(spectrum), self.units[number:],
            sizes.lines, sizes.columns, sizes.row_stride, sizes.lines * sizes.row_stride,
            ROWS=_TILE[0], COLUMNS=_TILE[1],
        )  # fmt: skip

    def _pull(self, layers: range, first: int, last: int, sums: torch.Tensor, add: bool) -> None:
        """Sum the contributions of the feature maps `first` to `last - 1` to some layers."""
        sizes = self.sizes
        weights, scales = self._line_weights(layers, first, last)
        targets, sources = weights.shape[2:]
        phases = self.phases[layers.start * self.settings.width :]
        (cosine_z, sine_z), (cosine_y, sine_y), (cosine_x, sine_x) = self.waves
        target_block = max(2, min(16, gpu.power_of_two(targets)))
        columns = min(_PRODUCT // (8 * target_block), 128, gpu.power_of_two(sizes.columns))
        columns = max(16, columns)
        source_block = 8 if sources <= 8 else 16
        slab, padded = sizes.table_lines(targets, sources), filled_up(sources, VECTOR // 2)
        for line in range(0, sizes.lines, slab):
            count = min(slab, sizes.lines - line)
            self.kernels.kernel_table[(-(-count // 32), -(-padded // 16), targets)](
                self.table, weights, cosine_z, sine_z, cosine_y, sine_y, phases,
                line, count, *sizes.padded[:2], targets, sources, padded, LINES=32, SOURCES=16,
            )  # fmt: skip
            grid = (count * -(-sizes.columns // columns), -(-targets // target_block))
            self.kernels.pull[grid](
                torch.view_as_real(sums), self.spectra[first:], self.table, cosine_x, sine_x,
                phases, scales, line, count, sizes.columns, sizes.row_stride,
                sizes.lines * sizes.row_stride, sizes.lines * sizes.columns, targets, sources,
                padded, ADD=add, TARGETS=target_block, COLUMNS=columns, SOURCES=source_block,
                PRECISION=gpu.DOT_PRECISION[self.precision],
            )  # fmt: skip

    def _line_weights(
        self, layers: range, first: int, last: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights as `kernel_table` reads them, in the sources' units, and the targets' scales.

        Returns
        -------
        weights : (9, 3, targets, sources) tensor
        scales : (targets,) tensor
            Factors of the sums: in float16 the weights of a target are divided by them, so that
            no number in the table exceeds one.
        """
        parts = []
        for layer in layers:
            part = self.weights[layer][:, first:last]
            dilation = self.settings.dilation(layer)
            outside = [axis for axis in range(3) if dilation >= self.sizes.box[axis]]
            if outside:
                # Such taps read zeros outside of the box, but the padding is too short for them.
                part = part.clone()
                for axis in outside:
                    part.select(axis + 2, 0).zero_()
                    part.select(axis + 2, 2).zero_()
            parts.append(part)
        weights = torch.cat(parts)
        scales = torch.ones(len(weights), device=self.device)
        if self.precision == "float16":
            weights = weights * self.units[first:last, None, None, None]
            largest = weights.abs().sum((2, 3, 4)).amax(1)
            scales = torch.where(largest > 0, largest, 1.0)
            weights = weights / scales[:, None, None, None, None]
        left, middle, right = weights.unbind(4)
        lines = torch.stack((middle, right + left, right - left))
        return lines.permute(3, 4, 0, 1, 2).reshape(9, 3, *weights.shape[:2]).contiguous(), scales
