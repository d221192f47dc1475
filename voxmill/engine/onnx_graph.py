"""An MS-D network as an ONNX graph, for runtimes that read one; it needs `onnx`, not torch."""

from typing import Any

import numpy as np

from voxmill.config.networks import MSDNetSettings


def model_bytes(settings: MSDNetSettings, tensors: dict[str, np.ndarray]) -> bytes:
    """The serialised network, for any batch and box.

    Parameters
    ----------
    settings : MSDNetSettings
    tensors : dict of str to float32 array
        Names and shapes as `settings.tensor_shapes()`.
    """
    from onnx import TensorProto, checker, helper

    graph = _Graph(tensors)
    graph.add("Sigmoid", [_logits(graph, settings)], "probability")
    axes = ["batch", None, "z", "y", "x"]
    value = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [axes[0], count, *axes[2:]])
        for name, count in (("volume", settings.inputs), ("probability", settings.outputs))
    ]
    made = helper.make_graph(graph.nodes, "msdnet", value[:1], value[1:], graph.constants)
    # The oldest versions that define these operators as used here, so that any runtime reads them.
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    checker.check_model(model)
    serialised: bytes = model.SerializeToString()
    return serialised


class _Graph:
    """Nodes and constants, each under a name of its own."""

    def __init__(self, tensors: dict[str, np.ndarray]) -> None:
        self.tensors = tensors
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(
        self, operator: str, inputs: list[str], name: str | None = None, **attributes: Any
    ) -> str:
        from onnx import helper

        name = name or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, value: np.ndarray) -> str:
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def conv(self, maps: str, weight: np.ndarray, bias: np.ndarray, dilation: int) -> str:
        """A zero-padded dilated convolution; a pointwise one if the weight has two axes."""
        if weight.ndim == 2:
            weight, dilation = weight[:, :, None, None, None], 0
        inputs = [maps, self.constant(weight), self.constant(bias)]
        return self.add("Conv", inputs, dilations=[max(dilation, 1)] * 3, pads=[dilation] * 6)


def _logits(graph: _Graph, settings: MSDNetSettings) -> str:
    maps = "volume"
    for layer in range(settings.depth):
        weight, bias = graph.tensors[f"weights.{layer}"], graph.tensors[f"biases.{layer}"]
        fresh = graph.add("Relu", [graph.conv(maps, weight, bias, settings.dilation(layer))])
        maps = graph.add("Concat", [maps, fresh], axis=1)
    return graph.conv(maps, graph.tensors["final_weight"], graph.tensors["final_bias"], 0)
