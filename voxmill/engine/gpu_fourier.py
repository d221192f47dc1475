"""The Fourier engine for GPUs: transforms by cuFFT, and Triton kernels between them.

The algebra is that of the engine for CPUs (`fourier`): each feature map is transformed once, a
dilated convolution is a product of spectra, and the zero boundary is exact. Layers are grouped into
panels. When a panel starts, its layers pull at once from all earlier feature maps, so that a
spectrum is read once a panel; inside of a panel each layer pulls from the few feature maps before
it. The spectra of the kernels are computed on the fly, for a slab of lines at a time
(`triton_fourier`). Of a feature map only its spectrum stays in memory. The logits are pulled from
all spectra at the end, like one more layer; the last layer's feature maps, which have none, are
added to the logits directly.

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
from voxmill.engine.gpu_passes import TILE, Fused, Passes, Separate, tiles
from voxmill.engine.gpu_spectra import VECTOR, SpectrumSizes
from voxmill.engine.torch_memory import IMPOSSIBLE
from voxmill.networks.msdnet import MSDNet

KERNELS = "voxmill.engine.triton_fourier"
ROW_KERNELS = "voxmill.engine.triton_rows"
_LARGEST = 2.0**14  # the largest number of a float16 spectrum, in its unit; float16 ends at 2^16
_PRODUCT = 8192  # numbers in the result of one program's matrix product


def available(network: nn.Module, device: str) -> str | None:
    """None if this engine can run the network on the device, else the reason why not."""
    return gpu.available(network, device, KERNELS)


def fused_available(network: nn.Module, device: str) -> str | None:
    """As `available`, with the pass along x as one kernel."""
    return gpu.available(network, device, ROW_KERNELS) or available(network, device)


def predict_bytes(
    settings: MSDNetSettings, box_shape: Shape, precision: str, fused: bool = False
) -> int:
    """Peak bytes of `run` on the device: spectra, a panel's sums, a table, input and logits.

    Transforms are in place; the scratch of cuFFT is counted as one spectrum.
    """
    z, y, x = box_shape
    sizes = SpectrumSizes(settings, (z, y, x), precision, fused)
    if fused and sizes.factors is None:
        return IMPOSSIBLE
    size = gpu.SIZES[precision]
    total = size * (2 * sizes.lines * sizes.row_stride * sizes.stored_maps)
    total += (sizes.panel_maps + 1) * 8 * sizes.lines * sizes.columns
    total += size * sizes.table_numbers()
    return total + 4 * (settings.outputs + settings.inputs) * sizes.voxels


def fused_predict_bytes(settings: MSDNetSettings, box_shape: Shape, precision: str) -> int:
    """As `predict_bytes`, or `IMPOSSIBLE` where a row is too long for the kernel."""
    return predict_bytes(settings, box_shape, precision, fused=True)


def run(
    network: MSDNet, volume: np.ndarray, device: str, precision: str, threads: int
) -> np.ndarray:
    """Probabilities; see `voxmill.engine.backends.forward`."""
    return gpu.probabilities(logits, network, volume, device, precision)


def fused_run(
    network: MSDNet, volume: np.ndarray, device: str, precision: str, threads: int
) -> np.ndarray:
    """As `run`, with the pass along x as one kernel."""
    return gpu.probabilities(fused_logits, network, volume, device, precision)


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


def fused_logits(network: MSDNet, volume: torch.Tensor, precision: str = "float32") -> torch.Tensor:
    """As `logits`, with the pass along x as one kernel."""
    return _Evaluation(network, volume, precision, fused=True).logits()


class _Evaluation:
    """The evaluation of one box, layer by layer."""

    def __init__(
        self, network: MSDNet, volume: torch.Tensor, precision: str, fused: bool = False
    ) -> None:
        from voxmill.engine import triton_fourier

        self.kernels = triton_fourier
        self.volume, self.device = volume, volume.device
        z, y, x = volume.shape[1:]
        self.sizes = SpectrumSizes(network.settings, (z, y, x), precision, fused)
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
        sums = (sizes.panel_maps, *sizes.padded[:2], sizes.columns)
        self.sums = self._empty(sums, torch.complex64)
        self.table = self._empty((sizes.table_numbers(),), self.kind)
        self.passes: Passes = (Fused if fused else Separate)(sizes, self.device)
        self.waves = [self._waves(axis) for axis in range(3)]
        # The row of `waves` for each feature map. Made once: a copy to a GPU waits for all work
        # before it.
        cycle, width = len(self.settings.dilations), self.settings.width
        rows = torch.arange(self.settings.depth, dtype=torch.int32) % cycle
        self.phases = rows.repeat_interleave(width).to(self.device)

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
            before = settings.channels_before(start)
            self._pull_layers(range(start, stop), 0, before, self.sums, add=False)
            for layer in range(start, stop):
                sums = self.sums[(layer - start) * width :]
                if layer > start:
                    ready = settings.channels_before(layer)
                    self._pull_layers(range(layer, layer + 1), before, ready, sums, add=True)
                for place in range(width):
                    self._finish(layer, place, sums[place])
        self._add_stored_maps()
        return self.result

    def _take_input(self, number: int) -> None:
        """Store the spectrum of an input."""
        volume = self.volume[number]
        largest = volume.abs().sum(dtype=torch.float64).float()
        self.passes.take(volume, self.sums[0])
        self._store(self.sums[0], number, largest)

    def _finish(self, layer: int, place: int, sums: torch.Tensor) -> None:
        """Turn the sums of a feature map into its spectrum, or in the last layer into logits."""
        number = self.settings.channels_before(layer) + place
        bias = self.biases[layer][place:]
        if number < self.sizes.stored_maps:
            self.passes.activate(sums, bias)
            self._store(sums, number, sums[0, 0, 0].real)
            return
        if number == self.sizes.stored_maps:  # the first one of the last layer
            self.result = self.final_bias[:, None, None, None].repeat(1, *self.sizes.box)
        self.passes.finish(sums, bias, self.final_weight[:, number:], self.result)

    def _add_stored_maps(self) -> None:
        """Add to the logits what they get from all feature maps but the last layer's."""
        sizes = self.sizes
        weights = self.final_weight.new_zeros((*self.final_weight.shape, 3, 3, 3))
        weights[:, :, 1, 1, 1] = self.final_weight
        for first in range(0, self.settings.outputs, sizes.panel_maps):
            some = weights[first : first + sizes.panel_maps, : sizes.stored_maps]
            self._pull(some, self.phases.new_zeros(len(some)), 0, self.sums, add=False)
            for place in range(len(some)):
                self.passes.add(self.sums[place], self.result[first + place])

    def _store(self, spectrum: torch.Tensor, number: int, largest: torch.Tensor) -> None:
        """Keep a spectrum of which no number exceeds `largest`."""
        sizes = self.sizes
        if self.precision == "float16":
            # A feature map that is zero everywhere, or NaN, has a unit of one.
            self.units[number] = torch.where(largest > 0, largest / _LARGEST, 1.0)
        self.kernels.store_spectrum[tiles(sizes.lines, sizes.columns)](
            self.spectra[number], torch.view_as_real(spectrum), self.units[number:],
            sizes.lines, sizes.columns, sizes.row_stride, sizes.lines * sizes.row_stride,
            ROWS=TILE[0], COLUMNS=TILE[1],
        )  # fmt: skip

    def _pull_layers(
        self, layers: range, first: int, last: int, sums: torch.Tensor, add: bool
    ) -> None:
        """Sum the contributions of the feature maps `first` to `last - 1` to some layers."""
        weights = torch.cat([self._within_box(layer, first, last) for layer in layers])
        phases = self.phases[layers.start * self.settings.width :]
        self._pull(weights, phases, first, sums, add)

    def _within_box(self, layer: int, first: int, last: int) -> torch.Tensor:
        """Weights of a layer without taps that read nothing but zeros outside of the box.

        The padding is too short for those.
        """
        weights, dilation = self.weights[layer][:, first:last], self.settings.dilation(layer)
        outside = [axis for axis in range(3) if dilation >= self.sizes.box[axis]]
        if outside:
            weights = weights.clone()
            for axis in outside:
                weights.select(axis + 2, 0).zero_()
                weights.select(axis + 2, 2).zero_()
        return weights

    def _pull(
        self,
        weights: torch.Tensor,
        phases: torch.Tensor,
        first: int,
        sums: torch.Tensor,
        add: bool,
    ) -> None:
        """Sum the contributions of the feature maps from `first` on.

        `weights` are (targets, sources, 3, 3, 3); `phases` are the targets' rows of `waves`.
        """
        sizes = self.sizes
        weights, scales = self._line_weights(weights, first)
        targets, sources = weights.shape[2:]
        (cosine_z, sine_z), (cosine_y, sine_y), (cosine_x, sine_x) = self.waves
        target_block = max(2, min(16, gpu.power_of_two(targets)))
        columns = min(_PRODUCT // (8 * target_block), 128, gpu.power_of_two(sizes.columns))
        columns = max(16, columns)
        source_block = 8 if sources <= 8 else 16
        slab, padded = sizes.table_lines(targets, sources), filled_up(sources, VECTOR)
        for line in range(0, sizes.lines, slab):
            count = min(slab, sizes.lines - line)
            self.kernels.kernel_table[(-(-count // 32), padded // 16, targets)](
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

    def _line_weights(self, weights: torch.Tensor, first: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights as `kernel_table` reads them, in the sources' units, and the targets' scales.

        Returns
        -------
        weights : (9, 3, targets, sources) tensor
        scales : (targets,) tensor
            Factors of the sums: in float16 the weights of a target are divided by them, so that
            no number in the table exceeds one.
        """
        scales = torch.ones(len(weights), device=self.device)
        if self.precision == "float16":
            units = self.units[first : first + weights.shape[1]]
            weights = weights * units[:, None, None, None]
            largest = weights.abs().sum((2, 3, 4)).amax(1)
            scales = torch.where(largest > 0, largest, 1.0)
            weights = weights / scales[:, None, None, None, None]
        left, middle, right = weights.unbind(4)
        lines = torch.stack((middle, right + left, right - left))
        return lines.permute(3, 4, 0, 1, 2).reshape(9, 3, *weights.shape[:2]).contiguous(), scales
