"""The native engine in the Fourier domain, for CPUs: sizes, memory and calls.

All maps are kept as spectra of the padded box, so that a dilated 3 x 3 x 3 convolution is a
pointwise product and a dilation costs nothing. With a zero boundary this is exact: after each
layer everything outside of the box is set to zero, and a margin of the largest dilation keeps
what wraps around out of it. See `native/engine.hpp`.
"""

import ctypes
import threading

import numpy as np

from voxmill.engine.build import NativeShape, load, native_dilations, native_shape
from voxmill.engine.transforms import lengths
from voxmill.networks.stored import StoredNetwork, is_msdnet
from voxmill.runtime.errors import VoxmillError

# Vector bytes of the native code; only the memory plan needs it, as an upper bound.
_VECTOR_BYTES = 64
_PANEL_MAPS = 16  # as in native/storage.hpp
_NAMES = {np.dtype(np.float32): "float32", np.dtype(np.float64): "float64"}


class _Settings(NativeShape):
    _fields_ = (
        ("lengths", ctypes.c_int32 * 3),
        ("training", ctypes.c_int32),
        ("dilations", ctypes.POINTER(ctypes.c_int32)),
    )


def available(network, device: str) -> str | None:
    """None if the native engine runs this network here, else the reason why not."""
    if not is_msdnet(network):
        return f"it evaluates MS-D networks, not {type(network).__name__}"
    if device != "cpu":
        return f"it runs on cpu, not on {device}"
    library = load("fourier")
    return library if isinstance(library, str) else None


def predict_bytes(settings, box_shape, precision: str = "float32", training: bool = False) -> int:
    """Peak bytes of one evaluation: the spectra, the columns of one layer, and the result.

    Parameters
    ----------
    settings : MSDNetSettings
    box_shape : (3,) ints
    precision : str
        "float32" or "float64"; "bfloat16" for spectra at rest in 32 bits a complex number (finer
        than two bfloat16: `Half` in native/simd.hpp), with sums in float32.
    training : bool
        Whether gradients are computed too.
    """
    half = precision == "bfloat16"
    size = 4 if half else np.dtype(precision).itemsize
    lanes = _VECTOR_BYTES // size
    pz, py, px = lengths(settings, box_shape, lanes)
    planes, y_blocks, x_blocks = pz // 2 + 1, -(-py // lanes), -(-box_shape[2] // lanes)
    maps = settings.maps_before(settings.depth)
    # `| 1` as in native/grid.hpp.
    spectrum = (planes * px * y_blocks | 1) * 2 * _VECTOR_BYTES
    columns = planes * (box_shape[1] * x_blocks | 1) * 2 * _VECTOR_BYTES
    if half:
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
    """Scratch that the gradients of one box need; boxes of a batch share it in turn.

    Raises
    ------
    MemoryError
        If the system does not give the memory.
    """

    def __init__(self, library, size: int):
        self._library, self.size = library, size
        library.voxmill_allocate.restype = library.voxmill_address.restype = ctypes.c_void_p
        self._storage = library.voxmill_allocate(ctypes.c_size_t(size))
        if not self._storage:
            raise MemoryError(f"native engine: no {size} bytes for gradients")
        self.address = library.voxmill_address(ctypes.c_void_p(self._storage))

    def __del__(self):
        if getattr(self, "_storage", None):
            self._library.voxmill_free(ctypes.c_void_p(self._storage))


class Engine:
    """One network's shape on one shape of box: its memory, and the calls that use it.

    Parameters
    ----------
    settings : MSDNetSettings
    box_shape : (3,) ints
        Voxels, z, y, x.
    dtype : numpy dtype
        float32 or float64.
    training : bool
        Keep what `backward` needs.
    half : bool
        Keep spectra in 32 bits a complex number; for float32 without training.

    Raises
    ------
    MemoryError
        If the system does not give the memory.
    """

    def __init__(self, settings, box_shape, dtype=np.float32, training=False, half=False):
        if half and (training or np.dtype(dtype) != np.float32):
            raise ValueError("bfloat16 spectra are for evaluation in float32")
        library = load("fourier")
        if isinstance(library, str):
            raise VoxmillError(f"the native engine can't be used here: {library}")
        self.settings, self.box_shape = settings, tuple(box_shape)
        self.dtype, self.training, self.half = np.dtype(dtype), training, half
        self._library, self._name = library, "bfloat16" if half else _NAMES[self.dtype]
        lanes = _VECTOR_BYTES // self.dtype.itemsize
        native = _Settings(
            *native_shape(settings, self.box_shape),
            lengths(settings, box_shape, lanes),
            int(training),
            native_dilations(settings),
        )
        create = self._function("create")
        create.restype = ctypes.c_void_p
        self._handle = create(ctypes.byref(native))
        if not self._handle:
            library.voxmill_problem.restype = ctypes.c_char_p
            raise MemoryError(f"native engine: {library.voxmill_problem().decode()}")

    def _function(self, name: str):
        return getattr(self._library, f"voxmill_{name}_{self._name}")

    def close(self) -> None:
        """Free the memory, for another engine of this process first."""
        if self._handle:
            self._function("destroy")(ctypes.c_void_p(self._handle))
            self._handle = None

    def __del__(self):
        if getattr(self, "_handle", None):
            self.close()

    def _pointer(self, array, shape):
        if array is None:
            return None
        if array.shape != tuple(shape) or array.dtype != self.dtype:
            raise ValueError(f"expected {shape} {self.dtype}, found {array.shape} {array.dtype}")
        if not array.flags.c_contiguous:
            raise ValueError("expected a C-contiguous array")
        return ctypes.c_void_p(array.ctypes.data)

    def forward(self, parameters, volume, threads: int) -> np.ndarray:
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

    def backward(self, parameters, logits_gradient, workspace, threads: int, volume_wanted=False):
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


def parameter_count(settings) -> int:
    """Numbers in the flat array of parameters."""
    return sum(int(np.prod(shape)) for shape in settings.tensor_shapes().values())


def tensors(network) -> list:
    """The network's tensors in the order of the flat array."""
    return [*network.weights, *network.biases, network.final_weight, network.final_bias]


def flat_parameters(network) -> np.ndarray:
    """Weights layer by layer, biases, final weights, final biases, in one array."""
    stored = StoredNetwork.of_msdnet(network)
    layers = range(stored.settings.depth)
    names = [f"{kind}.{layer}" for kind in ("weights", "biases") for layer in layers]
    names += ["final_weight", "final_bias"]
    return np.concatenate([stored.arrays[name].ravel() for name in names])


_kept = threading.local()


def run(network, volume, device: str, precision: str, threads: int) -> np.ndarray:
    """Probabilities; see `voxmill.engine.backends.forward`.

    The memory is kept for the next box, since a block follows a block and fresh pages cost as
    much as some layers do; `release` gives it back.
    """
    engine = getattr(_kept, "engine", None)
    wanted = (network.settings, volume.shape[1:], precision == "bfloat16")
    if engine is None or (engine.settings, engine.box_shape, engine.half) != wanted:
        if engine is not None:
            engine.close()
        engine = _kept.engine = Engine(*wanted[:2], half=wanted[2])
    logits = engine.forward(flat_parameters(network), volume, threads)
    return sigmoid(logits)


def release() -> None:
    """Give back the memory that is kept for the next box."""
    engine = getattr(_kept, "engine", None)
    if engine is not None:
        engine.close()
        _kept.engine = None
    library = load("fourier")
    if not isinstance(library, str):
        library.voxmill_release()


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Sigmoid in place, without overflow."""
    np.clip(logits, -80.0, 80.0, out=logits)
    np.negative(logits, out=logits)
    np.exp(logits, out=logits)
    logits += 1.0
    return np.reciprocal(logits, out=logits)
