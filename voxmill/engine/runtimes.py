"""OpenVINO and ONNX Runtime as backends, for CPU nodes that have one of them."""

import hashlib
import importlib.util

import numpy as np

from voxmill.engine.onnx_graph import model_bytes

# The last compiled network: compiling takes seconds, and block follows block.
_last: dict = {}


def _unavailable(network, device: str, package: str) -> str | None:
    from voxmill.networks.msdnet import MSDNet

    if not isinstance(network, MSDNet):
        return f"it evaluates MS-D networks, not {type(network).__name__}"
    if device != "cpu":
        return f"it runs on cpu, not on {device}"
    missing = [name for name in ("onnx", package) if importlib.util.find_spec(name) is None]
    return f"the package {missing[0]} is not installed" if missing else None


def openvino_available(network, device: str) -> str | None:
    """None if OpenVINO can run the network here, else the reason why not."""
    return _unavailable(network, device, "openvino")


def onnxruntime_available(network, device: str) -> str | None:
    """None if ONNX Runtime can run the network here, else the reason why not."""
    return _unavailable(network, device, "onnxruntime")


def openvino_run(network, volume, device, precision, threads) -> np.ndarray:
    """Probabilities; see `voxmill.engine.backends.forward`."""
    evaluate = _compiled(openvino_evaluator, network, precision, threads)
    return np.array(evaluate(volume[None])[0])


def onnxruntime_run(network, volume, device, precision, threads) -> np.ndarray:
    """Probabilities; see `voxmill.engine.backends.forward`."""
    evaluate = _compiled(onnxruntime_evaluator, network, precision, threads)
    return evaluate(volume[None])[0]


def openvino_predict_bytes(settings, box_shape, precision: str) -> int:
    """Peak bytes of `openvino_run`: two sets of all maps and one layer's copy in blocks."""
    return _bytes(settings, box_shape, {"float32": 4, "bfloat16": 2}[precision])


def onnxruntime_predict_bytes(settings, box_shape, precision: str) -> int:
    """Peak bytes of `onnxruntime_run`: all maps before and after a layer is appended."""
    return _bytes(settings, box_shape, 4)


def _bytes(settings, box_shape, size: int) -> int:
    maps = settings.maps_before(settings.depth)
    return size * int(np.prod(box_shape)) * (2 * maps + settings.width + settings.outputs)


def openvino_evaluator(model: bytes, precision: str, threads: int):
    """A function from a batch to its probabilities, compiled by OpenVINO for the CPU."""
    import openvino

    hint = {"float32": openvino.Type.f32, "bfloat16": openvino.Type.bf16}[precision]
    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": hint}
    compiled = core.compile_model(core.read_model(model), "CPU", settings)
    return lambda batch: compiled({"volume": batch})["probability"]


def onnxruntime_evaluator(model: bytes, precision: str, threads: int):
    """A function from a batch to its probabilities, by ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, {"volume": batch})[0]


def _compiled(evaluator, network, precision: str, threads: int):
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
