"""The direct engine for GPUs: dilated convolutions as matrix products on tensor cores.

The order is that of `torch_backends.right_looking`. When a panel of feature maps is complete, its
contribution to all later layers of one dilation is one convolution with many output channels;
inside of a panel each layer pulls from the few feature maps before it. The feature maps of a panel
lie beside each other at each voxel, filled up to a multiple of 16 channels for the matrix products
(`triton_direct`). After its pushes a panel is overwritten by the next one, so that of later layers
only the sums are in memory.

Feature maps and sums are kept in float32 or float16; products are summed in float32.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from voxmill.config.networks import MSDNetSettings
from voxmill.engine import gpu
from voxmill.engine.backend import Shape
from voxmill.networks.msdnet import MSDNet

KERNELS = "voxmill.engine.triton_direct"
PANEL_MAPS = 16  # feature maps; one step of a matrix product sums over them
_VOXELS = 128


@dataclass(frozen=True)
class PanelPlan:
    """The division of the layers into panels.

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
        """Channels of the largest panel, filled up to a multiple of 16."""
        maps = [len(panel) * self.settings.width for panel in self.panels]
        maps[0] += self.settings.inputs
        return gpu.filled_up(max(maps), 16)

    @property
    def slots(self) -> int:
        """Feature maps of all panels but the first: those with a place in `sums`."""
        return (self.settings.depth - len(self.panels[0])) * self.settings.width


def available(network: nn.Module, device: str) -> str | None:
    """None if this engine can run the network on the device, else the reason why not."""
    return gpu.available(network, device, KERNELS)


def predict_bytes(settings: MSDNetSettings, box_shape: Shape, precision: str) -> int:
    """Peak bytes of `run` on the device: one panel, sums of the later ones, input and logits."""
    plan, voxels = PanelPlan(settings), int(np.prod(box_shape))
    size = gpu.SIZES[precision] * (plan.channels + plan.slots)
    return voxels * (size + 4 * settings.inputs + 4 * settings.outputs)


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
        Storage of feature maps and sums, "float32" or "float16".

    Returns
    -------
    (outputs, z, y, x) float32 tensor
    """
    return _Evaluation(network, volume, precision).logits()


class _Evaluation:
    """The evaluation of one box, layer by layer."""

    def __init__(self, network: MSDNet, volume: torch.Tensor, precision: str) -> None:
        from voxmill.engine import triton_direct

        self.kernels, self.device, self.box = triton_direct, volume.device, volume.shape[1:]
        self.settings, self.plan = network.settings, PanelPlan(network.settings)
        self.kind, self.dot = getattr(torch, precision), gpu.DOT_PRECISION[precision]
        self.weights = [self._moved(weight).flatten(2) for weight in network.weights]
        self.biases = [self._moved(bias) for bias in network.biases]
        self.final_weight = self._moved(network.final_weight)[:, :, None]
        self.voxels = volume[0].numel()
        panel = (*self.box, self.plan.channels)
        self.panel = torch.zeros(panel, dtype=self.kind, device=self.device)
        self.panel[..., : len(volume)] = volume.movedim(0, -1)
        slots = (self.plan.slots, *self.box)
        self.sums = torch.zeros(slots, dtype=self.kind, device=self.device)
        bias = self._moved(network.final_bias)
        self.result = bias[:, None, None, None].repeat(1, *self.box)

    def _moved(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().to(self.device, torch.float32)

    def logits(self) -> torch.Tensor:
        settings, width = self.settings, self.settings.width
        outputs = torch.arange(settings.outputs, device=self.device)
        places = torch.arange(width, device=self.device)
        for panel in self.plan.panels:
            inputs = settings.inputs if panel.start == 0 else 0
            first = settings.channels_before(panel.start) - inputs
            for layer in panel:
                self._finish(layer, first, inputs + (layer - panel.start) * width, panel.start > 0)
            last = settings.channels_before(panel.stop)
            self._push(self.result, outputs, self.final_weight[:, first:last], 0)
            cycle = len(settings.dilations)
            for phase in range(min(cycle, settings.depth - panel.stop)):
                layers = range(panel.stop + phase, settings.depth, cycle)
                weights = torch.cat([self.weights[i][:, first:last] for i in layers])
                # Made on the device: a copy from the host would wait for all work before it.
                first_slots = torch.arange(
                    self._slot(layers.start), self.plan.slots, cycle * width, device=self.device
                )
                slots = first_slots[:, None] + places
                self._push(self.sums, slots.flatten(), weights, settings.dilation(layers[0]))
        return self.result

    def _slot(self, layer: int) -> int:
        return (layer - len(self.plan.panels[0])) * self.settings.width

    def _finish(self, layer: int, first: int, channel: int, pushed: bool) -> None:
        """Compute a layer's feature maps at `channel`; channel 0 of the panel holds map `first`."""
        weights = self._table(self.weights[layer][:, first : first + channel])
        self.kernels.finish[self._grid(weights)](
            self.panel, self.sums[self._slot(layer) :] if pushed else self.sums,
            self.biases[layer], weights, self.voxels, self.settings.width, channel, channel,
            self.plan.channels, weights.shape[2], *self.box, self.settings.dilation(layer),
            PUSHED=pushed, **self._options(weights),
        )  # fmt: skip

    def _push(
        self, sums: torch.Tensor, slots: torch.Tensor, weights: torch.Tensor, dilation: int
    ) -> None:
        """Convolve the whole panel with weights (targets, sources, taps), into slots of `sums`."""
        ready, table = weights.shape[1], self._table(weights)
        self.kernels.push[self._grid(table)](
            sums, slots, self.panel, table, self.voxels, len(slots), ready, self.plan.channels,
            table.shape[2], *self.box, dilation, **self._options(table),
        )  # fmt: skip

    def _table(self, weights: torch.Tensor) -> torch.Tensor:
        """Weights (targets, sources, taps) as (taps, channels, targets filled up)."""
        targets, sources, taps = weights.shape
        block = _target_block(targets)
        table = torch.zeros(
            (taps, self.plan.channels, gpu.filled_up(targets, block)),
            dtype=self.kind, device=self.device,
        )  # fmt: skip
        table[:, :sources, :targets] = weights.permute(2, 1, 0)
        return table

    def _grid(self, table: torch.Tensor) -> tuple[int, int]:
        return -(-self.voxels // _VOXELS), table.shape[2] // _target_block(table.shape[2])

    def _options(self, table: torch.Tensor) -> dict[str, Any]:
        return {
            "TAPS": table.shape[0],
            "VOXELS": _VOXELS,
            "TARGETS": _target_block(table.shape[2]),
            "PRECISION": self.dot,
        }


def _target_block(targets: int) -> int:
    """Targets of one program (an instance of a kernel)."""
    return max(16, min(32, gpu.power_of_two(targets)))
