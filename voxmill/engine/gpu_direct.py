"""The direct engine for GPUs: dilated convolutions as matrix products on tensor cores.

The order is that of `torch_backends.right_looking`: when a panel of maps is complete, what it
gives to all later layers of one dilation is one convolution with many output maps; only inside of
a panel does each layer pull from the few maps before it. A panel's maps lie beside each other at
each voxel, filled up to a multiple of 16, as matrix products want them (`triton_direct`). After
its pushes a panel is overwritten by the next, so of a later layer there are only its sums.

Maps and sums are kept in float32 or float16; products are summed in float32.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import torch

from voxmill.config.networks import MSDNetSettings
from voxmill.engine import gpu

KERNELS = "voxmill.engine.triton_direct"
PANEL_MAPS = 16  # what one step of a matrix product sums over
_VOXELS = 128


@dataclass(frozen=True)
class Layout:
    """How the layers are cut into panels.

    Parameters
    ----------
    settings : MSDNetSettings
    """

    settings: MSDNetSettings

    @property
    def panels(self) -> list[range]:
        """Layers of each panel; the inputs belong to the first one."""
        layers = max(1, PANEL_MAPS // self.settings.width)
        first = max(1, (PANEL_MAPS - self.settings.inputs) // self.settings.width)
        edges = [0, *range(first, self.settings.depth, layers), self.settings.depth]
        return [range(a, b) for a, b in itertools.pairwise(edges) if a < b]

    @property
    def channels(self) -> int:
        """Maps of the largest panel, filled up to a multiple of 16."""
        maps = [len(panel) * self.settings.width for panel in self.panels]
        maps[0] += self.settings.inputs
        return -(-max(maps) // 16) * 16

    @property
    def slots(self) -> int:
        """Maps of all panels but the first."""
        return (self.settings.depth - len(self.panels[0])) * self.settings.width


def available(network, device: str) -> str | None:
    """None if this engine runs the network on the device, else why not."""
    return gpu.available(network, device, KERNELS)


def predict_bytes(settings, box_shape, precision: str) -> int:
    """Peak bytes of `run` on the device: one panel, sums of the later ones, input and logits."""
    layout, voxels = Layout(settings), int(np.prod(box_shape))
    size = gpu.SIZES[precision] * (layout.channels + layout.slots)
    return voxels * (size + 4 * settings.inputs + 4 * settings.outputs)


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
        Storage of maps and sums, "float32" or "float16".

    Returns
    -------
    (outputs, z, y, x) float32 tensor
    """
    return _Evaluation(network, volume, precision).logits()


class _Evaluation:
    """One box on its way through the layers."""

    def __init__(self, network, volume: torch.Tensor, precision: str):
        from voxmill.engine import triton_direct

        self.kernels, self.device, self.box = triton_direct, volume.device, volume.shape[1:]
        self.settings, self.layout = network.settings, Layout(network.settings)
        self.kind, self.dot = getattr(torch, precision), gpu.DOT_PRECISION[precision]
        self.weights = [self._moved(weight).flatten(2) for weight in network.weights]
        self.biases = [self._moved(bias) for bias in network.biases]
        self.final_weight = self._moved(network.final_weight)[:, :, None]
        self.voxels = volume[0].numel()
        panel = (*self.box, self.layout.channels)
        self.panel = torch.zeros(panel, dtype=self.kind, device=self.device)
        self.panel[..., : len(volume)] = volume.movedim(0, -1)
        slots = (self.layout.slots, *self.box)
        self.sums = torch.zeros(slots, dtype=self.kind, device=self.device)
        bias = self._moved(network.final_bias)
        self.result = bias[:, None, None, None].repeat(1, *self.box)

    def _moved(self, tensor) -> torch.Tensor:
        return tensor.detach().to(self.device, torch.float32)

    def logits(self) -> torch.Tensor:
        settings, width = self.settings, self.settings.width
        outputs = torch.arange(settings.outputs, device=self.device)
        places = torch.arange(width, device=self.device)
        for panel in self.layout.panels:
            inputs = settings.inputs if panel.start == 0 else 0
            first = settings.maps_before(panel.start) - inputs
            for layer in panel:
                self._finish(layer, first, inputs + (layer - panel.start) * width, panel.start > 0)
            last = settings.maps_before(panel.stop)
            self._push(self.result, outputs, self.final_weight[:, first:last], 0)
            cycle = len(settings.dilations)
            for phase in range(min(cycle, settings.depth - panel.stop)):
                layers = range(panel.stop + phase, settings.depth, cycle)
                weights = torch.cat([self.weights[i][:, first:last] for i in layers])
                # Made on the device: a copy to it would wait for all before it.
                first_slots = torch.arange(
                    self._slot(layers.start), self.layout.slots, cycle * width, device=self.device
                )
                slots = first_slots[:, None] + places
                self._push(self.sums, slots.flatten(), weights, settings.dilation(layers[0]))
        return self.result

    def _slot(self, layer: int) -> int:
        return (layer - len(self.layout.panels[0])) * self.settings.width

    def _finish(self, layer: int, first: int, channel: int, pushed: bool) -> None:
        """Make a layer's maps at `channel`; the panel's channel 0 holds map `first`."""
        weights = self._table(self.weights[layer][:, first : first + channel])
        self.kernels.finish[self._grid(weights)](
            self.panel, self.sums[self._slot(layer) :] if pushed else self.sums,
            self.biases[layer], weights, self.voxels, self.settings.width, channel, channel,
            self.layout.channels, weights.shape[2], *self.box, self.settings.dilation(layer),
            PUSHED=pushed, **self._options(weights),
        )  # fmt: skip

    def _push(self, sums, slots, weights, dilation: int) -> None:
        """Add what the whole panel gives, by weights (targets, maps, taps), to slots of `sums`."""
        ready, table = weights.shape[1], self._table(weights)
        self.kernels.push[self._grid(table)](
            sums, slots, self.panel, table, self.voxels, len(slots), ready, self.layout.channels,
            table.shape[2], *self.box, dilation, **self._options(table),
        )  # fmt: skip

    def _table(self, weights: torch.Tensor) -> torch.Tensor:
        """Weights (targets, maps, taps) as (taps, channels, targets filled up)."""
        targets, maps, taps = weights.shape
        block = _target_block(targets)
        table = torch.zeros(
            (taps, self.layout.channels, -(-targets // block) * block),
            dtype=self.kind, device=self.device,
        )  # fmt: skip
        table[:, :maps, :targets] = weights.permute(2, 1, 0)
        return table

    def _grid(self, table: torch.Tensor) -> tuple[int, int]:
        return -(-self.voxels // _VOXELS), table.shape[2] // _target_block(table.shape[2])

    def _options(self, table: torch.Tensor) -> dict:
        return {
            "TAPS": table.shape[0],
            "VOXELS": _VOXELS,
            "TARGETS": _target_block(table.shape[2]),
            "PRECISION": self.dot,
        }


def _target_block(targets: int) -> int:
    """Targets of one program."""
    return max(16, min(32, gpu.power_of_two(targets)))
