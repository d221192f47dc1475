"""Memory that jobs take on their host, from the engine's own plans; torch is not imported."""

from voxmill.config.networks import MSDNetSettings
from voxmill.engine.backends import BACKENDS, Backend
from voxmill.engine.transfer import BUFFER_NUMBERS
from voxmill.geometry import Triple
from voxmill.networks import check_settings
from voxmill.networks.models import card_path, read_card
from voxmill.prediction.memory import SHARE, box_bytes
from voxmill.runtime.errors import VoxmillError
from voxmill.workflow.wildcards import Settings

# Python, NumPy and PyTorch; with CUDA its libraries, context and compiled kernels as well.
CPU_BASE_MB = 1500
GPU_BASE_MB = 4000
# Four float32 buffers that a GPU reads and writes by itself.
PINNED_MB = 4 * 4 * BUFFER_NUMBERS // 2**20
_TRAINING_PATCH_VOX = (96, 96, 96)
# Edges of what a validation evaluates at once: its blocks with their halos.
_VALIDATION_BOX_VOX = (208, 208, 208)


def megabytes(size: float) -> int:
    """Bytes as whole MB of 2^20 bytes, as SLURM counts them.

    >>> megabytes(3 * 2**20 + 1)
    3
    """
    return int(size // 2**20)


def backend_on_cpu(kind: str, settings: Settings) -> Backend:
    """The backend whose plan holds for a network on a CPU.

    With `auto` the one that computes in the Fourier domain, whose memory is enough for the others;
    programs of `torch.export` run in PyTorch.

    Parameters
    ----------
    kind : str
        A key of `voxmill.networks.NETWORKS`.
    settings : dict
        The section `prediction` of a configuration.
    """
    name, precision = settings["backend"], settings["precision"]
    if kind == "exported":
        return BACKENDS["torch"]
    if name == "auto":
        return BACKENDS["fourier" if precision in BACKENDS["fourier"].precisions else "torch"]
    return BACKENDS["torch" if name.startswith("gpu-") else name]


def evaluation_bytes(kind: str, network: Settings, settings: Settings, box_vox: Triple) -> int:
    """What a box takes on a CPU if it shall not be cut into blocks.

    Parameters
    ----------
    kind : str
        A key of `voxmill.networks.NETWORKS`.
    network, settings : dict
        Of the network's card, and the section `prediction` of a configuration.
    box_vox : (3,) int
        Voxels z, y, x.
    """
    backend = backend_on_cpu(kind, settings)
    checked = check_settings(kind, network)
    known = settings["precision"] in backend.precisions
    precision = settings["precision"] if known else "float32"
    return round(box_bytes(backend, checked, precision, box_vox) / SHARE)


def training_bytes(settings: Settings, start: str | None = None) -> int:
    """What a training takes on a CPU: its patches with gradients, and a validation.

    Parameters
    ----------
    settings : dict
        Of `voxmill.config.training.TrainingSettings`; what is wrong in them is for the training
        itself to say.
    start : path, optional
        Weights that the training starts from, whose network holds unless the settings have one.
    """
    from voxmill.engine import fourier

    try:
        network = dict(settings.get("network") or _network_of(start))
        network["outputs"] = 2 if settings.get("foreground") else 1
        shape = check_settings(network.pop("kind", "msdnet"), network)
        if not isinstance(shape, MSDNetSettings):
            return 0
        patch = tuple(settings.get("patch_vox") or _TRAINING_PATCH_VOX)
        # Patches of a batch share the scratch of the gradients, which is half of one's memory.
        patches = (1 + settings.get("batch", 1)) / 2
        gradients = patches * fourier.predict_bytes(shape, patch, training=True)
        needed: float = gradients + fourier.predict_bytes(shape, _VALIDATION_BOX_VOX)
        return round(needed)
    except (VoxmillError, TypeError, ValueError):
        return 0


def _network_of(weights: str | None) -> Settings:
    if weights is None or not card_path(weights).is_file():
        return {}
    card = read_card(weights)
    return {"kind": card.network, **card.settings}
