"""OpenVINO and ONNX Runtime as backends, for CPU nodes that have one of them."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from voxmill.config.networks import MSDNetSettings
from voxmill.engine.backend import Shape
from voxmill.engine.onnx_graph import model_bytes

if TYPE_CHECKING:
    from torch import nn

    from voxmill.networks.msdnet import MSDNet

Evaluator = Callable[[np.ndarray], np.ndarray]
# The last compiled network: compiling takes seconds, and the next block needs the same one.
_last: dict[tuple[Any, ...], Evaluator] = {}


def _unavailable(network: nn.Module, device: str, package: str) -> str | None:
    from voxmill.networks.msdnet import MSDNet

    if not isinstance(network, MSDNet):
        return f"it evaluates MS-D networks, not {type(network).__name__}"
    if device != "cpu":
        return f"it runs on cpu, not on {device}"
    missing = [name for name in ("onnx", package) if importlib.util.find_spec(name) is None]
    return f"the package {missing[0]} is not installed" if missing else None


def openvino_available(network: nn.Module, device: str) -> str | None:
    """None if OpenVINO can run the network here, else the reason why not."""
    return _unavailable(network, device, "openvino")


def onnxruntime_available(network: nn.Module, device: str) -> str | None:
    """None if ONNX Runtime can run the network here, else the reason why not."""
    return _unavailable(network, device, "onnxruntime")


def openvino_run(
    network: MSDNet, volume: np.ndarray, device: str, precision: str, threads: int
) -> np.ndarray:
    """Probabilities; see `voxmill.engine.backends.forward`."""
    evaluate = _compiled(openvino_evaluator, network, precision, threads)
    return np.array(evaluate(volume[None])[0])


def onnxruntime_run(
    network: MSDNet, volume: np.ndarray, device: str, precision: str, threads: int
) -> np.ndarray:
    """Probabilities; see `voxmill.engine.backends.forward`."""
    evaluate = _compiled(onnxruntime_evaluator, network, precision, threads)
    probabilities: np.ndarray = evaluate(volume[None])[0]
    return probabilities


def openvino_predict_bytes(settings: MSDNetSettings, box_shape: Shape, precision: str) -> int:
    """Peak bytes of `openvino_run`: all feature maps twice, and one layer's copy in blocks."""
    return _bytes(settings, box_shape, {"float32": 4, "bfloat16": 2}[precision])


def onnxruntime_predict_bytes(settings: MSDNetSettings, box_shape: Shape, precision: str) -> int:
    """Peak bytes of `onnxruntime_run`: all feature maps before and after a layer is appended."""
    return _bytes(settings, box_shape, 4)


def _bytes(settings: MSDNetSettings, box_shape: Shape, size: int) -> int:
    channels = settings.channels_before(settings.depth)
    return size * int(np.prod(box_shape)) * (2 * channels + settings.width + settings.outputs)


def openvino_evaluator(model: bytes, precision: str, threads: int) -> Evaluator:
    """A function from a batch to its probabilities, compiled by OpenVINO for the CPU."""
    import openvino

    hint = {"float32": openvino.Type.f32, "bfloat16": openvino.Type.bf16}[precision]
    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": hint}
    compiled = core.compile_model(core.read_model(model), "CPU", settings)
    return lambda batch: compiled({"volume": batch})["probability"]


def onnxruntime_evaluator(model: bytes, precision: str, threads: int) -> Evaluator:
    """A function from a batch to its probabilities, by ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, {"volume": batch})[0]


def _compiled(
    evaluator: Callable[[bytes, str, int], Evaluator],
    network: MSDNet,
    precision: str,
    threads: int,
) -> Evaluator:
    tensors = {k: v.detach().cpu().numpy() for k, v in network.state_dict().items()}
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + tensor.tobytes())
    kind = (network.settings, digest.hexdigest())
    key = (evaluator, *kind, precision, threads)
    if key not in _last:
        _last.clear()
        model = model_bytes(network.settings, tensors)
        _last[key] = evaluator(model, precision, threads)
    return _last[key]
