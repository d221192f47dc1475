"""The native engine in the Fourier domain, for CPUs: sizes, memory and calls.

All feature maps are kept as spectra of the padded box, so that a dilated 3 x 3 x 3 convolution is a
pointwise product and a dilation costs nothing. With a zero boundary this is exact: after each
layer everything outside of the box is set to zero, and a margin as wide as the largest dilation
holds what wraps around. See `native/engine.hpp`.
"""

from __future__ import annotations

import ctypes
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from voxmill.config.networks import MSDNetSettings
from voxmill.engine.backend import Shape
from voxmill.engine.build import NativeShape, load, loaded, native_dilations, native_shape
from voxmill.engine.transforms import lengths
from voxmill.networks.stored import Network, StoredNetwork, is_msdnet

if TYPE_CHECKING:
    import torch

    from voxmill.networks.msdnet import MSDNet

# Bytes of the widest vectors: an upper bound, for the memory plan and the lengths of transforms.
_VECTOR_BYTES = 64
_PANEL_MAPS = 16  # kPanelMaps in native/storage.hpp
_NAMES = {np.dtype(np.float32): "float32", np.dtype(np.float64): "float64"}


class _Settings(NativeShape):
    _fields_ = (
        ("lengths", ctypes.c_int32 * 3),
        ("training", ctypes.c_int32),
        ("dilations", ctypes.POINTER(ctypes.c_int32)),
    )


def available(network: Network, device: str) -> str | None:
    """None if the native engine can run this network here, else the reason why not."""
    if not is_msdnet(network):
        return f"it evaluates MS-D networks, not {type(network).__name__}"
    if device != "cpu":
        return f"it runs on cpu, not on {device}"
    library = load("fourier")
    return library if isinstance(library, str) else None


def predict_bytes(
    settings: MSDNetSettings,
    box_shape: Shape,
    precision: str = "float32",
    training: bool = False,
) -> int:
    """Peak bytes of one evaluation: the spectra, the columns of one layer, and the result.

    Parameters
    ----------
    settings : MSDNetSettings
    box_shape : (3,) ints
    precision : str
        "float32" or "float64", or "shared16": spectra in 32 bits a complex number (see
        native/shared16.hpp), sums in float32.
    training : bool
        Whether gradients are computed too.
    """
    shared = precision == "shared16"
    size = 4 if shared else np.dtype(precision).itemsize
    lanes = _VECTOR_BYTES // size
    pz, py, px = lengths(settings, box_shape, lanes)
    planes, y_blocks, x_blocks = pz // 2 + 1, -(-py // lanes), -(-box_shape[2] // lanes)
    maps = settings.channels_before(settings.depth)
    # Odd numbers of vectors, as in native/grid.hpp.
    spectrum = (planes * px * y_blocks | 1) * 2 * _VECTOR_BYTES
    columns = planes * (box_shape[1] * x_blocks | 1) * 2 * _VECTOR_BYTES
    if shared:
        panel = min(_PANEL_MAPS - 1 + max(settings.width, settings.outputs), maps)
        total = spectrum * maps // 2 + spectrum * panel
    else:
        total = spectrum * (maps + settings.outputs) * (2 if training else 1)
    total += columns * max(settings.inputs, settings.width, settings.outputs)
    if training:
        voxels = box_shape[0] * box_shape[1] * x_blocks * lanes
        total += voxels * settings.depth * settings.width
    return total + size * settings.outputs * int(np.prod(box_shape))


class Workspace:
    """Scratch for the gradients of one box; the boxes of a batch use it one after another.

    Parameters
    ----------
    library : CDLL
        The native library.
    size : int
        Bytes.

    Raises
    ------
    MemoryError
        If the system does not give the memory.
    """

    def __init__(self, library: ctypes.CDLL, size: int) -> None:
        self._library, self.size = library, size
        library.voxmill_allocate.restype = library.voxmill_address.restype = ctypes.c_void_p
        self._storage = library.voxmill_allocate(ctypes.c_size_t(size))
        if not self._storage:
            raise MemoryError(f"native engine: the system does not give {size} bytes for gradients")
        self.address = library.voxmill_address(ctypes.c_void_p(self._storage))

    def __del__(self) -> None:
        if getattr(self, "_storage", None):
            self._library.voxmill_free(ctypes.c_void_p(self._storage))


class Engine:
    """The memory for one shape of network and one shape of box, and the calls that use it.

    Parameters
    ----------
    settings : MSDNetSettings
    box_shape : (3,) ints
        Voxels, z, y, x.
    dtype : numpy dtype
        float32 or float64.
    training : bool
        Keep what `backward` needs.
    shared16 : bool
        Keep spectra in 32 bits a complex number (see native/shared16.hpp); for float32 without
        training.

    Raises
    ------
    MemoryError
        If the system does not give the memory.
    VoxmillError
        If there is no native library here.
    """

    def __init__(
        self,
        settings: MSDNetSettings,
        box_shape: Shape,
        dtype: Any = np.float32,
        training: bool = False,
        shared16: bool = False,
    ) -> None:
        if shared16 and (training or np.dtype(dtype) != np.float32):
            raise ValueError("shared16: expected float32 without training")
        library = loaded("fourier")
        self.settings, self.box_shape = settings, tuple(box_shape)
        self.dtype, self.training, self.shared16 = np.dtype(dtype), training, shared16
        self._library, self._name = library, "shared16" if shared16 else _NAMES[self.dtype]
        lanes = _VECTOR_BYTES // self.dtype.itemsize
        native = _Settings(
            *native_shape(settings, self.box_shape),
            lengths(settings, box_shape, lanes),
            int(training),
            native_dilations(settings),
        )
        create = self._function("create")
        create.restype = ctypes.c_void_p
        self._handle: int | None = create(ctypes.byref(native))
        if not self._handle:
            library.voxmill_problem.restype = ctypes.c_char_p
            raise MemoryError(f"native engine: {library.voxmill_problem().decode()}")

    def _function(self, name: str) -> Any:
        return getattr(self._library, f"voxmill_{name}_{self._name}")

    def close(self) -> None:
        """Free the memory; the next engine of this process may take it over."""
        if self._handle:
            self._function("destroy")(ctypes.c_void_p(self._handle))
            self._handle = None

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self.close()

    def _pointer(self, array: np.ndarray | None, shape: Shape) -> ctypes.c_void_p | None:
        if array is None:
            return None
        if array.shape != tuple(shape) or array.dtype != self.dtype:
            raise ValueError(f"expected {shape} {self.dtype}, found {array.shape} {array.dtype}")
        if not array.flags.c_contiguous:
            raise ValueError("expected a C-contiguous array")
        return ctypes.c_void_p(array.ctypes.data)

    def forward(self, parameters: np.ndarray, volume: np.ndarray, threads: int) -> np.ndarray:
        """Logits (outputs, z, y, x) of a volume (inputs, z, y, x).

        Parameters
        ----------
        parameters : (P,) array
            See `flat_parameters`.
        volume : (inputs, z, y, x) array
        threads : int
        """
        logits = np.empty((self.settings.outputs, *self.box_shape), self.dtype)
        self._function("forward")(
            ctypes.c_void_p(self._handle),
            self._pointer(parameters, (parameter_count(self.settings),)),
            self._pointer(volume, (self.settings.inputs, *self.box_shape)),
            self._pointer(logits, logits.shape),
            ctypes.c_int(threads),
        )
        return logits

    def workspace(self) -> Workspace:
        """Scratch for `backward`."""
        size = self._function("workspace_bytes")
        size.restype = ctypes.c_size_t
        return Workspace(self._library, size(ctypes.c_void_p(self._handle)))

    def backward(
        self,
        parameters: np.ndarray,
        logits_gradient: np.ndarray,
        workspace: Workspace,
        threads: int,
        volume_wanted: bool = False,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Gradients after a `forward` with the same parameters.

        Parameters
        ----------
        parameters : (P,) array
        logits_gradient : (outputs, z, y, x) array
        workspace : Workspace
        threads : int
        volume_wanted : bool
            Whether to compute the gradient of the volume too.

        Returns
        -------
        gradient : (P,) array
            In the parameters' layout.
        volume_gradient : (inputs, z, y, x) array or None
        """
        if not self.training:
            raise ValueError("this engine was made without training=True")
        gradient = np.empty(parameter_count(self.settings), self.dtype)
        shape = (self.settings.inputs, *self.box_shape)
        volume_gradient = np.empty(shape, self.dtype) if volume_wanted else None
        self._function("backward")(
            ctypes.c_void_p(self._handle),
            self._pointer(parameters, gradient.shape),
            self._pointer(logits_gradient, (self.settings.outputs, *self.box_shape)),
            self._pointer(gradient, gradient.shape),
            self._pointer(volume_gradient, shape),
            ctypes.c_void_p(workspace.address),
            ctypes.c_int(threads),
        )
        return gradient, volume_gradient


def parameter_count(settings: MSDNetSettings) -> int:
    """Length of the flat array of parameters."""
    return sum(int(np.prod(shape)) for shape in settings.tensor_shapes().values())


def tensors(network: MSDNet) -> list[torch.Tensor]:
    """The network's tensors in the order of the flat array."""
    return [*network.weights, *network.biases, network.final_weight, network.final_bias]


def flat_parameters(network: StoredNetwork | MSDNet) -> np.ndarray:
    """Weights layer by layer, biases, final weights, final biases, in one array."""
    stored = StoredNetwork.of_msdnet(network)
    layers = range(stored.settings.depth)
    names = [f"{kind}.{layer}" for kind in ("weights", "biases") for layer in layers]
    names += ["final_weight", "final_bias"]
    return np.concatenate([stored.arrays[name].ravel() for name in names])


_kept = threading.local()


def run(
    network: StoredNetwork | MSDNet, volume: np.ndarray, device: str, precision: str, threads: int
) -> np.ndarray:
    """Probabilities; see `voxmill.engine.backends.forward`.

    The memory is kept for the next box, which usually has the same shape: fresh pages take as long
    as some layers. `release` gives it back.
    """
    engine = getattr(_kept, "engine", None)
    wanted = (network.settings, volume.shape[1:], precision == "shared16")
    if engine is None or (engine.settings, engine.box_shape, engine.shared16) != wanted:
        if engine is not None:
            engine.close()
        engine = _kept.engine = Engine(*wanted[:2], shared16=wanted[2])
    logits = engine.forward(flat_parameters(network), volume, threads)
    return sigmoid(logits)


def release() -> None:
    """Free the memory that is kept for the next box."""
    engine = getattr(_kept, "engine", None)
    if engine is not None:
        engine.close()
        _kept.engine = None
    library = load("fourier")
    if not isinstance(library, str):
        library.voxmill_release()


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Sigmoid, in place and without overflow."""
    np.clip(logits, -80.0, 80.0, out=logits)
    np.negative(logits, out=logits)
    np.exp(logits, out=logits)
    logits += 1.0
    np.reciprocal(logits, out=logits)
    return logits
