"""What both engines for GPUs share; importing this module imports neither torch nor Triton."""

import contextlib
import importlib

PRECISIONS = ("float32", "float16")
SIZES = {"float32": 4, "float16": 2}
# Three products of TensorFloat-32 numbers give the accuracy of one in float32.
DOT_PRECISION = {"float32": "tf32x3", "float16": "ieee"}


def available(network, device: str, kernels: str) -> str | None:
    """None if an engine with these kernels runs the network on the device, else why not.

    Parameters
    ----------
    network : torch module
    device : str
    kernels : str
        Module with the Triton kernels.
    """
    from voxmill.networks.msdnet import MSDNet

    if not isinstance(network, MSDNet):
        return f"it evaluates MS-D networks, not {type(network).__name__}"
    if not device.startswith("cuda"):
        return f"it runs on cuda, not on {device}"
    import torch

    if not torch.cuda.is_available():
        return f"there is no CUDA device for {device}"
    return kernels_problem(kernels)


def kernels_problem(kernels: str) -> str | None:
    """Why the Triton kernels of a module can't be had, or None.

    A broken installation of Triton fails in many ways (no package, no driver, no compiler); each
    of them means that plain PyTorch has to do.
    """
    try:
        importlib.import_module(kernels)
    except Exception as error:
        return f"Triton can't be imported ({type(error).__name__}: {error})"
    return None


@contextlib.contextmanager
def on_device(device: str):
    """Make a GPU the current one: Triton launches its kernels there. Nothing on the CPU."""
    import torch

    with torch.no_grad():
        if device.startswith("cuda"):
            with torch.cuda.device(device):
                yield
        else:
            yield


def probabilities(logits, network, volume, device: str, precision: str):
    """What `logits(network, volume on the device, precision)` gives, as probabilities on the host.

    Parameters
    ----------
    logits : function
        Of one of the engines.
    network : MSDNet
    volume : (inputs, z, y, x) float32 array
    device, precision : str

    Returns
    -------
    (outputs, z, y, x) float32 array
    """
    import torch

    with on_device(device):
        result = logits(network, torch.from_numpy(volume).to(device), precision)
        return result.sigmoid_().cpu().numpy()


def power_of_two(number: int) -> int:
    """The least power of two that is at least `number`: what Triton's blocks are made of."""
    return 1 << max(0, number - 1).bit_length()
