"""The Fourier engine for GPUs: cuFFT through torch.fft, and Triton kernels between.

The algebra is that of the engine for CPUs (`fourier`): each map is transformed once, every dilated
convolution is a product of spectra, the boundary is zero and exact. Layers are grouped into
panels. At its start a panel's layers pull at once from all earlier maps, so that a spectrum is
read once a panel; inside of a panel each layer pulls from the few maps before it. Kernels have
their spectra made on the fly, a slab of lines at a time (`triton_fourier`). The last layer is
accumulated map by map, so a map itself never stays.

In float16 the spectra are kept in half precision, each in a unit of its own: a map is not negative
behind its ReLU, so no frequency exceeds frequency zero, and in a fixed share of that one nothing
overflows. Sums, transforms and logits are float32.
"""

import numpy as np
import torch

from voxmill.engine import gpu
from voxmill.engine.gpu_layout import VECTOR, Layout, filled_up

KERNELS = "voxmill.engine.triton_fourier"
_LARGEST = 2.0**14  # what the largest number of a float16 spectrum is rounded to; the end is 2^16
_TILE = (16, 128)  # rows and columns of a program that goes through a map or a spectrum
_PRODUCT = 8192  # numbers in the result of one program's matrix product


def available(network, device: str) -> str | None:
    """None if this engine runs the network on the device, else why not."""
    return gpu.available(network, device, KERNELS)


def _tiles(rows: int, columns: int) -> tuple[int, int]:
    return -(-rows // _TILE[0]), -(-columns // _TILE[1])


def predict_bytes(settings, box_shape, precision: str) -> int:
    """Peak bytes of `run` on the device: spectra, a panel's sums, and one map's transform.

    While a map is transformed there are the map, its spectrum (or a copy of its sums, which
    cuFFT overwrites), and the scratch of cuFFT, counted as a spectrum.
    """
    layout = Layout(settings, tuple(box_shape), precision)
    size = gpu.SIZES[precision]
    spectrum = 8 * layout.lines * layout.columns
    total = size * (2 * layout.lines * layout.row_stride * layout.stored_maps)
    total += layout.panel_layers * settings.width * spectrum + size * layout.table_numbers()
    total += 4 * int(np.prod(layout.padded)) + 2 * spectrum
    return total + 4 * (settings.outputs + settings.inputs) * int(np.prod(box_shape))


def run(network, volume, device: str, precision: str, threads: int) -> np.ndarray:
    """Probabilities; see `voxmill.engine.backends.forward`."""
    return gpu.probabilities(logits, network, volume, device, precision)


def logits(network, volume: torch.Tensor, precision: str = "float32") -> torch.Tensor:
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


# With an axis in front torch lets cuFFT transform all three axes at once; without, it goes axis by
# axis through copies (`use_optimized_cufft_path` in torch's SpectralOps.cpp).


def _forward(real: torch.Tensor, padded) -> torch.Tensor:
    """Spectrum of a map, zero behind its end."""
    return torch.fft.rfftn(real[None], padded)[0].contiguous()


def _inverse(spectrum: torch.Tensor, padded) -> torch.Tensor:
    """Map of a spectrum, not divided by its size: `activate` scales, which is one pass less."""
    return torch.fft.irfftn(spectrum[None], padded, norm="forward")[0].contiguous()


class _Evaluation:
    """One box on its way through the layers."""

    def __init__(self, network, volume: torch.Tensor, precision: str):
        from voxmill.engine import triton_fourier

        self.kernels = triton_fourier
        self.volume, self.device = volume, volume.device
        self.layout = Layout(network.settings, tuple(volume.shape[1:]), precision)
        self.settings = network.settings
        self.precision, self.kind = precision, getattr(torch, precision)
        self.weights = [self._moved(weight) for weight in network.weights]
        self.biases = [self._moved(bias) for bias in network.biases]
        self.final_weight = self._moved(network.final_weight)
        self.final_bias = self._moved(network.final_bias)
        layout = self.layout
        stored = (layout.stored_maps, 2, layout.lines, layout.row_stride)
        self.spectra = torch.zeros(stored, dtype=self.kind, device=self.device)
        self.units = torch.ones(layout.stored_maps, device=self.device)
        panel_maps = layout.panel_layers * self.settings.width
        self.sums = self._empty((panel_maps, *layout.padded[:2], layout.columns), torch.complex64)
        self.table = self._empty((layout.table_numbers(),), self.kind)
        self.waves = [self._waves(axis) for axis in range(3)]
        # Row of the waves for each map; made once, for a copy to a GPU waits for all before it.
        cycle, width = len(self.settings.dilations), self.settings.width
        rows = torch.arange(self.settings.depth, dtype=torch.int32) % cycle
        self.phases = rows.repeat_interleave(width).to(self.device)
        self.result = self.final_bias[:, None, None, None].repeat(1, *layout.box)

    def _moved(self, tensor) -> torch.Tensor:
        return tensor.detach().to(self.device, torch.float32).contiguous()

    def _empty(self, shape, kind) -> torch.Tensor:
        return torch.empty(shape, dtype=kind, device=self.device)

    def _waves(self, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines (dilation of the cycle, frequency) of a step along an axis."""
        length = self.layout.padded[axis]
        count = self.layout.columns if axis == 2 else length
        turns = np.outer(self.settings.dilations, np.arange(count)) % length
        angles = 2.0 * np.pi * turns / length
        return tuple(
            torch.from_numpy(f(angles).astype(np.float32)).to(self.device) for f in (np.cos, np.sin)
        )

    def logits(self) -> torch.Tensor:
        settings, width, layers = self.settings, self.settings.width, self.layout.panel_layers
        for number in range(settings.inputs):
            self._take_input(number)
        self.volume = None
        for start in range(0, settings.depth, layers):
            stop = min(start + layers, settings.depth)
            self._pull(range(start, stop), 0, settings.maps_before(start), self.sums, add=False)
            for layer in range(start, stop):
                sums = self.sums[(layer - start) * width :]
                if layer > start:
                    first, last = settings.maps_before(start), settings.maps_before(layer)
                    self._pull(range(layer, layer + 1), first, last, sums, add=True)
                for place in range(width):
                    self._finish(layer, place, sums[place])
        return self.result

    def _take_input(self, number: int) -> None:
        """Transform an input, and give the last layer its part of it."""
        volume = self.volume[number]
        for output, weight in enumerate(self.final_weight[:, number]):
            self.result[output].addcmul_(volume, weight)
        largest = volume.abs().sum(dtype=torch.float64).float()
        self._store(_forward(volume, self.layout.padded), number, largest)

    def _finish(self, layer: int, place: int, sums: torch.Tensor) -> None:
        """From the sums of a map to its part of the logits and its spectrum."""
        layout, settings = self.layout, self.settings
        real = _inverse(sums, layout.padded)
        number = settings.maps_before(layer) + place
        self.kernels.activate[_tiles(layout.lines, layout.padded[2])](
            real, self.result, self.biases[layer][place:], self.final_weight[:, number:],
            1.0 / real.numel(), *layout.padded, *layout.box, int(np.prod(layout.box)),
            self.final_weight.stride(0), settings.outputs, ROWS=_TILE[0], COLUMNS=_TILE[1],
        )  # fmt: skip
        if number < layout.stored_maps:
            spectrum = _forward(real, layout.padded)
            del real
            self._store(spectrum, number, spectrum[0, 0, 0].real)

    def _store(self, spectrum: torch.Tensor, number: int, largest: torch.Tensor) -> None:
        """Keep a spectrum of which no number exceeds `largest`."""
        layout = self.layout
        if self.precision == "float16":
            # A map that is zero everywhere, or NaN, keeps a unit of one.
            self.units[number] = torch.where(largest > 0, largest / _LARGEST, 1.0)
        self.kernels.store_spectrum[_tiles(layout.lines, layout.columns)](
            self.spectra[number], torch.view_as_real(spectrum), self.units[number:],
            layout.lines, layout.columns, layout.row_stride, layout.lines * layout.row_stride,
            ROWS=_TILE[0], COLUMNS=_TILE[1],
        )  # fmt: skip

    def _pull(self, layers: range, first: int, last: int, sums: torch.Tensor, add: bool) -> None:
        """Let layers sum what the maps from `first` to before `last` give them."""
        layout = self.layout
        weights, scales = self._line_weights(layers, first, last)
        targets, sources = weights.shape[2:]
        phases = self.phases[layers.start * self.settings.width :]
        (cosine_z, sine_z), (cosine_y, sine_y), (cosine_x, sine_x) = self.waves
        target_block = max(2, min(16, gpu.power_of_two(targets)))
        columns = min(_PRODUCT // (8 * target_block), 128, gpu.power_of_two(layout.columns))
        columns = max(16, columns)
        source_block = 8 if sources <= 8 else 16
        slab, padded = layout.table_lines(targets, sources), filled_up(sources, VECTOR // 2)
        for line in range(0, layout.lines, slab):
            count = min(slab, layout.lines - line)
            self.kernels.kernel_table[(-(-count // 32), -(-padded // 16), targets)](
                self.table, weights, cosine_z, sine_z, cosine_y, sine_y, phases,
                line, count, *layout.padded[:2], targets, sources, padded, LINES=32, SOURCES=16,
            )  # fmt: skip
            grid = (count * -(-layout.columns // columns), -(-targets // target_block))
            self.kernels.pull[grid](
                torch.view_as_real(sums), self.spectra[first:], self.table, cosine_x, sine_x,
                phases, scales, line, count, layout.columns, layout.row_stride,
                layout.lines * layout.row_stride, layout.lines * layout.columns, targets, sources,
                padded, ADD=add, TARGETS=target_block, COLUMNS=columns, SOURCES=source_block,
                PRECISION=gpu.DOT_PRECISION[self.precision],
            )  # fmt: skip

    def _line_weights(self, layers: range, first: int, last: int):
        """Weights as `kernel_table` reads them, in the sources' units, and the targets' scales.

        Returns
        -------
        weights : (9, 3, targets, sources) tensor
        scales : (targets,) tensor
            What the sums must be multiplied by: in float16 the table's rows keep to one.
        """
        parts = []
        for layer in layers:
            part = self.weights[layer][:, first:last]
            dilation = self.settings.dilation(layer)
            outside = [axis for axis in range(3) if dilation >= self.layout.box[axis]]
            if outside:
                # Such steps lead from the box to where all is zero, but the padding is shorter.
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
