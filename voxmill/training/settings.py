"""What is chosen in a training; torch-free."""

import dataclasses
import math
from dataclasses import dataclass, field

from voxmill.cells.find_cells import CellSettings
from voxmill.networks import check_settings
from voxmill.runtime.errors import VoxmillError

DEVICES = ("auto", "cpu", "cuda")
ROTATIONS = {"like": ((0, 1), (0, 2), (1, 2)), "yx": ((1, 2),), "none": ()}
"""Planes (pairs of axes) that each choice may turn in."""
TARGETS = ("centroid", "mask")
PRECISIONS = ("float32", "bfloat16", "float16")
_POSITIVE = ("cell_diameter_um", "learning_rate", "gradient_norm", "target_sigma_um")
_POSITIVE += ("max_distance_um", "positive_weight", "foreground_weight")
_COUNTS = ("steps", "batch", "validate_every", "checkpoint_every")


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a training patch; 0 or false leaves one out.

    Parameters
    ----------
    flip : bool
        Mirror along each axis.
    rotate : str
        "like": turn by multiples of 90 degrees in every plane whose two axes have one voxel size
        and one patch length. "yx": within the imaging plane alone, where depth is blurred more
        than the voxel size tells. "none".
    scale, shift : float
        Normalised intensities are multiplied by up to exp(±scale), and up to ±shift is added.
    noise : float
        Largest standard deviation of added Gaussian noise, normalised intensities.
    blur_vox : float
        Largest standard deviation of a Gaussian blur, voxels.
    """

    flip: bool = True
    rotate: str = "like"
    scale: float = 0.25
    shift: float = 0.1
    noise: float = 0.08
    blur_vox: float = 0.7

    def __post_init__(self):
        if self.rotate not in ROTATIONS:
            raise VoxmillError(
                f"training.augmentation.rotate: expected one of {list(ROTATIONS)}, "
                f"found {self.rotate!r}"
            )
        for key in ("scale", "shift", "noise", "blur_vox"):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 10:
                raise VoxmillError(
                    f"training.augmentation.{key}: expected a number from 0 to 10, found {value!r}"
                )


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained.

    Parameters
    ----------
    cell_diameter_um : float
        Typical cell diameter; the defaults of the next three lengths follow from it.
    network : dict
        `kind` (a key of `voxmill.networks.NETWORKS`) and its settings. `outputs` follows from
        `foreground`.
    target : str
        What the first map learns. "centroid": a Gaussian around each centroid. "mask": the cells'
        masks, for cells whose centroid is no place of its own in the image, such as whole cells
        with processes; its cells are connected components.
    foreground : bool
        Learn a second output map, the cells' masks; every volume then needs a mask or labels, as
        with target "mask".
    patch_vox : (3,) tuple of int
        Patch shape z, y, x.
    batch, steps, seed : int
        Patches per step, steps at most, seed of weights, patches and augmentation.
    learning_rate : float
        Of Adam, at its highest: linear rise over the first 3 % of the steps, then a cosine to 0.
    gradient_norm : float
        Gradients are scaled down to this norm.
    average : float
        Decay per step of the moving average of the weights, which is what is validated and saved
        (Polyak & Juditsky, SIAM J. Control Optim. 30(4), 1992); 0 for none.
    target_sigma_um : float, optional
        Standard deviation of the Gaussian around a centroid; 0.2 cell diameters.
    margin_vox : int
        Voxels at a patch's faces that don't count in the loss, unless the face is the volume's.
    cell_share : float
        Share of patches drawn so that they hold a cell; the others lie anywhere.
    positive_weight : float, optional
        A voxel of target t counts 1 + positive_weight * t. By default so much that all cells
        together count a third of the background, and 3 with target "mask", since masks fill more.
    foreground_weight : float
        Weight of the foreground map's loss beside the centroid map's.
    validate_every, patience, checkpoint_every : int
        Steps between validations; validations without a better F1 before the training stops (0:
        never); steps between checkpoints.
    max_distance_um : float, optional
        Matching distance of the validation; half a cell diameter.
    finder : dict
        Settings of the cell finder (`voxmill.cells.find_cells.CellSettings`) but for the threshold,
        which is chosen on the validation data. By default maxima at least 0.4 diameters apart, or
        with target "mask" components. The model's card keeps it.
    normalisation : dict
        See `voxmill.networks.models.ModelCard`.
    augmentation : Augmentation
    device, precision : str
        "auto", "cpu" or "cuda"; "float32", or on a GPU "bfloat16" or "float16".
    """

    cell_diameter_um: float
    network: dict = field(default_factory=dict)
    target: str = "centroid"
    foreground: bool = False
    patch_vox: tuple[int, int, int] = (96, 96, 96)
    batch: int = 1
    steps: int = 3000
    seed: int = 0
    learning_rate: float = 2e-3
    gradient_norm: float = 5.0
    average: float = 0.995
    target_sigma_um: float | None = None
    margin_vox: int = 4
    cell_share: float = 0.7
    positive_weight: float | None = None
    foreground_weight: float = 0.5
    validate_every: int = 250
    patience: int = 0
    checkpoint_every: int = 250
    max_distance_um: float | None = None
    finder: dict = field(default_factory=dict)
    normalisation: dict = field(default_factory=lambda: {"low": 5.0, "high": 99.0, "clip": 10.0})
    augmentation: Augmentation = field(default_factory=Augmentation)
    device: str = "auto"
    precision: str = "float32"

    def __post_init__(self):
        _check_numbers(self)
        self._fill("target_sigma_um", 0.2 * self.cell_diameter_um)
        self._fill("max_distance_um", 0.5 * self.cell_diameter_um)
        patch = tuple(self.patch_vox)
        if len(patch) != 3 or any(not isinstance(n, int) or n < 1 for n in patch):
            raise VoxmillError(
                f"training.patch_vox: expected three integers >= 1, found {list(patch)}"
            )
        if any(n <= 2 * self.margin_vox for n in patch):
            raise VoxmillError(
                f"training.patch_vox: expected more than twice margin_vox ({self.margin_vox}) "
                f"along every axis, found {list(patch)}"
            )
        object.__setattr__(self, "patch_vox", patch)
        network = {"kind": "msdnet", **self.network, "outputs": self.outputs}
        kind = network.pop("kind")
        checked = dataclasses.asdict(check_settings(kind, network))
        object.__setattr__(self, "network", {"kind": kind, **checked})
        method = "components" if self.target == "mask" else "maxima"
        spacing = {"min_distance_um": 0.4 * self.cell_diameter_um}
        finder = {"method": method, **spacing, **self.finder}
        if "threshold" in finder:
            raise VoxmillError("training.finder.threshold: it is chosen on the validation data")
        CellSettings.from_dict(finder)
        object.__setattr__(self, "finder", finder)
        choices = {"device": DEVICES, "precision": PRECISIONS, "target": TARGETS}
        for key, allowed in choices.items():
            if getattr(self, key) not in allowed:
                raise VoxmillError(
                    f"training.{key}: expected one of {list(allowed)}, found {getattr(self, key)!r}"
                )

    @property
    def outputs(self) -> int:
        """Number of maps that the network learns."""
        return 2 if self.foreground else 1

    @property
    def needs_mask(self) -> bool:
        """Whether every training volume needs a mask."""
        return self.foreground or self.target == "mask"

    def _fill(self, key: str, value: float) -> None:
        if getattr(self, key) is None:
            object.__setattr__(self, key, value)

    @classmethod
    def from_dict(cls, settings: dict) -> "TrainingSettings":
        """Settings from a section of a configuration, or from a checkpoint.

        Raises
        ------
        VoxmillError
            If a key is unknown or missing, or a value is out of range.
        """
        settings = dict(settings)
        _refuse_unknown("training", settings, cls)
        if "cell_diameter_um" not in settings:
            raise VoxmillError("training: missing key 'cell_diameter_um'")
        augmentation = settings.get("augmentation", {})
        if isinstance(augmentation, dict):
            _refuse_unknown("training.augmentation", augmentation, Augmentation)
            settings["augmentation"] = Augmentation(**augmentation)
        return cls(**settings)


def _refuse_unknown(where: str, settings: dict, kind: type) -> None:
    known = [f.name for f in dataclasses.fields(kind)]
    if unknown := sorted(set(settings) - set(known)):
        raise VoxmillError(f"{where}: unknown key {unknown[0]!r}; expected some of {known}")


def _check_numbers(settings: TrainingSettings) -> None:
    bounds = dict.fromkeys(_POSITIVE, (1e-12, math.inf, "a number above 0"))
    bounds |= dict.fromkeys(_COUNTS, (1, math.inf, "an integer of 1 or more"))
    bounds |= dict.fromkeys(
        ("seed", "patience", "margin_vox"), (0, math.inf, "an integer of 0 or more")
    )
    bounds |= {"average": (0, 0.99999, "a number from 0 to below 1")}
    bounds |= {"cell_share": (0, 1, "a number from 0 to 1")}
    for key, (low, high, expected) in bounds.items():
        value = getattr(settings, key)
        if value is None and key in ("target_sigma_um", "max_distance_um", "positive_weight"):
            continue
        kinds = int if "integer" in expected else (int, float)
        good = isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high
        if not good or math.isinf(value):
            raise VoxmillError(f"training.{key}: expected {expected}, found {value!r}")
