"""The 3D mixed-scale dense network in plain PyTorch: the reference for every other backend.

D. M. Pelt and J. A. Sethian, "A mixed-scale dense convolutional neural network for image
analysis", PNAS 115(2):254-259, 2018, https://doi.org/10.1073/pnas.1715832114.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxmill.config.networks import MSDNetSettings


class MSDNet(nn.Module):
    """Each layer convolves the input and all earlier feature maps with dilated 3 x 3 x 3 kernels.

    The boundary is zero: outside of the array not only the input but every feature map is zero. It
    must stay so: the Fourier engine is exact with this boundary alone, because it sets each feature
    map to zero outside of the box after each layer.

    Parameters
    ----------
    settings : MSDNetSettings
    generator : torch.Generator, optional
        Source of the initial weights: He-normal, scaled by the number of a layer's input channels,
        so that feature maps keep their variance at any depth.

    Attributes
    ----------
    weights : ParameterList of (width, inputs + layer * width, 3, 3, 3) tensors
    biases : ParameterList of (width,) tensors
    final_weight : (outputs, inputs + depth * width) Parameter
    final_bias : (outputs,) Parameter
    """

    def __init__(self, settings: MSDNetSettings, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.settings = settings
        shapes = settings.tensor_shapes()
        layers = range(settings.depth)
        self.weights = nn.ParameterList(torch.empty(shapes[f"weights.{i}"]) for i in layers)
        self.biases = nn.ParameterList(torch.zeros(shapes[f"biases.{i}"]) for i in layers)
        self.final_weight = nn.Parameter(torch.empty(shapes["final_weight"]))
        self.final_bias = nn.Parameter(torch.zeros(shapes["final_bias"]))
        with torch.no_grad():
            for weight in self.weights:
                weight.normal_(0.0, (2.0 / (27 * weight.shape[1])) ** 0.5, generator=generator)
            fan_in = self.final_weight.shape[1]
            self.final_weight.normal_(0.0, fan_in**-0.5, generator=generator)

    def forward(self, volume: Tensor) -> Tensor:
        """Logits of a batch.

        Parameters
        ----------
        volume : (batch, inputs, z, y, x) float tensor
            Normalised intensities.

        Returns
        -------
        (batch, outputs, z, y, x) tensor
            Logits; `sigmoid` of them are probabilities.
        """
        if torch.is_grad_enabled():
            maps = volume
            for layer in range(self.settings.depth):
                maps = torch.cat((maps, self._layer(layer, maps)), dim=1)
        else:
            seen = self.settings.inputs
            maps = volume.new_empty(volume.shape[0], self.final_weight.shape[1], *volume.shape[2:])
            maps[:, :seen] = volume
            for layer in range(self.settings.depth):
                maps[:, seen : seen + self.settings.width] = self._layer(layer, maps[:, :seen])
                seen += self.settings.width
        return functional.conv3d(maps, self.final_weight[:, :, None, None, None], self.final_bias)

    def _layer(self, layer: int, maps: Tensor) -> Tensor:
        dilation = self.settings.dilation(layer)
        return functional.conv3d(
            maps, self.weights[layer], self.biases[layer], padding=dilation, dilation=dilation
        ).relu_()
