"""What is chosen in a training."""

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from voxmill.config.base import (
    Checked,
    Count,
    FilePath,
    Flag,
    Name,
    Number,
    OrEmpty,
    Positive,
    Region,
    Regions,
    Section,
    Seed,
    SettingError,
    Share,
    Text,
    TripleUm,
    TripleVox,
    Whole,
    section,
    setting,
)
from voxmill.config.cells import CellSettings
from voxmill.config.networks import MSDNetSettings
from voxmill.config.normalisation import Normalisation
from voxmill.config.volumes import GroundTruthSection, Index
from voxmill.runtime.paths import shipped

ROTATIONS = {"like": ((0, 1), (0, 2), (1, 2)), "yx": ((1, 2),), "none": ()}
"""Planes (pairs of axes) that each choice may turn in."""
_Below10 = Annotated[Number, Field(ge=0, lt=10)]


@section("training.network")
class TrainedNetwork(MSDNetSettings):
    """The network to train; its number of outputs follows from `foreground` and `touching`."""

    kind: Literal["msdnet"] = "msdnet"
    """Name of the network."""


@section("training.augmentation")
class Augmentation(Section):
    """Random changes of a training patch; 0 or false leaves one out."""

    flip: Flag = True
    """Mirror along each axis."""
    rotate: Literal["like", "yx", "none"] = "like"
    """like: turn by multiples of 90 degrees in every plane whose two axes have one voxel size and
    one patch length. yx: within the imaging plane alone, where depth is blurred more than the
    voxel size tells."""
    scale: _Below10 = 0.25
    """Normalised intensities are multiplied by up to exp(scale) and divided by no more."""
    shift: _Below10 = 0.1
    """Up to so much is added to the normalised intensities, or taken from them."""
    noise: _Below10 = 0.08
    """Largest standard deviation of added noise, normalised intensities; more where it is bright,
    as photons have it, and half the time as coarse as the volume's own after interpolation."""
    blur_vox: _Below10 = 0.7
    """Largest standard deviation of a Gaussian blur, drawn for each axis."""
    gradient: _Below10 = 0.0
    """Contrast changes along a random direction, half the time along z as light fades with depth:
    by up to exp(gradient) from one end of the patch to the other."""
    layer: _Below10 = 0.0
    """A layer of tissue across z (half the time across any axis) is brighter or darker by up to so
    much, with soft edges; its contrast is multiplied by up to exp(layer) or divided by no more."""
    seam: _Below10 = 0.0
    """Contrast and level jump at a plane, as where two acquisitions meet: by up to exp(seam), and
    by a quarter of seam."""


@section("training")
class TrainingSettings(Section):
    """How a network is trained."""

    cell_diameter_um: Positive
    """Typical cell diameter; the defaults of other lengths follow from it."""
    cell_diameter_vox: Positive | tuple[Positive, Positive, Positive] | None = None
    """Train a model for cells of any size: each volume is resampled so that its cells
    (`cell_diameter_um` of the volume) have this diameter in voxels, one or z, y, x. All lengths of
    the settings are then for cells of the settings' `cell_diameter_um`, and count relative to it;
    8 voxels are usual."""
    network: Annotated[dict[str, Any], Checked(TrainedNetwork)] = setting(factory=dict)
    """`kind` and shape of the network. `outputs` follows from `foreground` and `touching`."""
    target: Literal["centroid", "mask"] = "centroid"
    """What the first output map learns. centroid: a Gaussian around each centroid. mask: the
    cells' masks, for cells whose centroid is no place of its own in the image, such as whole cells
    with processes; its cells are connected components. Where the ground truth is centroids, the
    mask is a ball of half a cell diameter around each, and what lies between that and 0.6 diameters
    from it does not count: for adapting a model that has learnt masks."""
    foreground: Flag = False
    """Learn a second output map, the cells' masks; every volume then needs a mask or labels, as
    with target mask."""
    touching: Literal["none", "distance", "centre", "boundary"] = "none"
    """Learn an output map beside the masks that parts touching objects; the truth should be labels.
    distance: how deep a voxel lies in its object, as a share of the largest depth there. centre: a
    Gaussian around the deepest place, as wide as the object. boundary: the outermost voxels. Needs
    `foreground` or target mask. Cells are then the summits inside of the masks."""
    patch_vox: TripleVox = (96, 96, 96)
    """Patch shape z, y, x; more than twice `margin_vox` along each axis."""
    batch: Count = 1
    """Patches per step."""
    steps: Count = 3000
    """Steps at most."""
    seed: Seed = 0
    """Of weights, patches and augmentation."""
    learning_rate: Positive = 2e-3
    """Of Adam, at its highest: linear rise over the first 3 % of the steps, then a cosine to 0."""
    gradient_norm: Positive = 5.0
    """Gradients are scaled down to this norm."""
    average: Number = setting(default=0.995, ge=0, lt=1)
    """Decay per step of the moving average of the weights, which is what is validated and saved
    (Polyak & Juditsky, SIAM J. Control Optim. 30(4), 1992); 0 for none."""
    target_sigma_um: Positive | None = None
    """Standard deviation of the Gaussian around a centroid; 0.2 cell diameters by default."""
    margin_vox: Whole = setting(default=4, ge=0)
    """Voxels at a patch's faces that don't count in the loss, unless the face is the volume's."""
    cell_share: Share = 0.7
    """Share of patches drawn so that they hold a cell; the others lie anywhere."""
    balance: Share = 0.5
    """How patches are shared out among volumes: by their numbers of cells to the power of this. 1:
    each cell counts alike; 0: each volume."""
    dim_share: Share = 0.0
    """Share of the patches on cells whose cell is drawn evenly over brightness, so that the dim and
    the bright are seen as often as the many between."""
    mistake_share: Share = 0.0
    """Share of patches drawn on the network's own mistakes in the training volumes: false finds and
    missed cells, looked for once, at `mistakes_from`; 0 for none."""
    mistakes_from: Share = 0.4
    """Share of the steps after which the mistakes are looked for."""
    positive_weight: Positive | None = None
    """A voxel of target t counts 1 + positive_weight * t. By default so much that all cells
    together count a third of the background, and 3 with target mask, since masks fill more."""
    foreground_weight: Positive = 0.5
    """Weight of the foreground map's loss beside the first map's."""
    validate_every: Count = 250
    """Steps between validations."""
    patience: Whole = setting(default=0, ge=0)
    """Validations without a better F1 before the training stops; 0: never."""
    checkpoint_every: Count = 250
    """Steps between checkpoints."""
    max_distance_um: Positive | None = None
    """Matching distance of the validation; half a cell diameter by default."""
    detector: Annotated[dict[str, Any], Checked(CellSettings)] = setting(factory=dict)
    """Settings of the detector but for the threshold, which is chosen on the validation data. By
    default maxima at least 0.4 diameters apart, or with target mask components. The model's card
    keeps them."""
    normalisation: Annotated[dict[str, Any], Checked(Normalisation)] = setting(
        factory=lambda: Normalisation().plain()
    )
    """How grey values become the network's input; all three keys."""
    augmentation: OrEmpty[Augmentation] = setting(factory=Augmentation)
    """Random changes of the patches."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU where the job sees one."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Numbers that the network computes with; on a CPU float32."""

    def __post_init__(self) -> None:
        self._fill("target_sigma_um", 0.2 * self.cell_diameter_um)
        self._fill("max_distance_um", 0.5 * self.cell_diameter_um)
        if any(n <= 2 * self.margin_vox for n in self.patch_vox):
            raise SettingError(
                "patch_vox",
                f"expected more than twice margin_vox ({self.margin_vox}) along every axis, found "
                f"{list(self.patch_vox)}",
            )
        network = dataclasses.asdict(TrainedNetwork(**{**self.network, "outputs": self.outputs}))
        object.__setattr__(self, "network", {"kind": network.pop("kind"), **network})
        if "threshold" in self.detector:
            raise SettingError(
                "detector.threshold", "it is chosen on the validation data; leave it out"
            )
        if self.touching != "none" and not self.needs_mask:
            raise SettingError(
                "touching",
                f"expected foreground: true or target: mask beside {self.touching}, which parts "
                "the objects of a mask, found neither",
            )
        summits = self.target == "centroid" or self.touching != "none"
        method = "maxima" if summits else "components"
        spacing = {"min_distance_um": 0.4 * self.cell_diameter_um}
        object.__setattr__(self, "detector", {"method": method, **spacing, **self.detector})

    @property
    def output_names(self) -> tuple[str, ...]:
        """Meaning of each map that the network learns, in order; see `ModelCard.outputs`."""
        second = ("foreground",) if self.foreground else ()
        third = (self.touching,) if self.touching != "none" else ()
        return (self.target, *second, *third)

    @property
    def outputs(self) -> int:
        """Number of maps that the network learns."""
        return len(self.output_names)

    @property
    def needs_mask(self) -> bool:
        """Whether masks are learnt."""
        return self.foreground or self.target == "mask"

    @property
    def outlines(self) -> bool:
        """Whether centroids alone are no ground truth."""
        return self.foreground or self.touching != "none"

    def _fill(self, key: str, value: float) -> None:
        if getattr(self, key) is None:
            object.__setattr__(self, key, value)


@section("training.volumes")
class TrainingVolume(Section):
    """A volume with ground truth to train on or to validate with."""

    path: FilePath
    """The volume."""
    truth: OrEmpty[GroundTruthSection]
    """The cells, as in the section `volumes`."""
    channel: Index | None = None
    """Which channel to read, where the file has several; from 0."""
    level: Index | None = None
    """Level of a pyramid (OME-Zarr, BigDataViewer, Imaris) to read; 0, the finest, when left
    out."""
    time: Index | None = None
    """Time point to read (OME-Zarr, HDF5), where the file has several; from 0."""
    dataset: Annotated[Text, Field(min_length=1)] | None = None
    """Path of the image inside of a Zarr or HDF5 container that holds several."""
    pattern: Text | None = None
    """Which files of a folder are its planes, as in the section `volumes`."""
    voxel_size_um: TripleUm | None = None
    """Voxel size z, y, x; wins over the file's header."""
    cell_diameter_um: Positive | None = None
    """Typical diameter of the cells in this volume, for a training with `cell_diameter_vox`."""
    mask: FilePath | None = None
    """Mask or labels for the foreground map, where the ground truth is neither."""
    region: Regions | None = None
    """Where every cell is in the ground truth: a box, or several with semicolons between; the whole
    volume when left out."""
    validation: Flag | Region | None = None
    """Kept out of the training to validate: true for the whole region, or a box in absolute
    voxels."""


@section("training")
class TrainingSection(Section):
    """One network to train; it becomes models/NAME.safetensors with its card beside it."""

    volumes: Annotated[dict[Name, TrainingVolume], Field(min_length=1)]
    """Volumes with ground truth, by name; all of one voxel size, but for a training with
    `cell_diameter_vox`."""
    start: (
        Annotated[
            FilePath,
            Field(
                pattern=r"\.safetensors$",
                json_schema_extra={"expected": "a file name that ends with .safetensors"},
            ),
            AfterValidator(shipped),
        ]
        | None
    ) = None
    """Model to start from (fine-tuning); its network, normalisation and cell diameter hold unless
    the settings say otherwise."""
    settings: OrEmpty[
        Annotated[dict[str, Any], Checked(TrainingSettings, cell_diameter_um=1.0)]
    ] = setting(factory=dict)
    """How the network is trained; cell_diameter_um is needed unless `start` tells it."""

    def __post_init__(self) -> None:
        if self.start is None and "cell_diameter_um" not in self.settings:
            raise SettingError(
                "settings.cell_diameter_um",
                "missing: expected the typical cell diameter in micrometres, or a model to start "
                "from (start)",
            )
        general = self.settings.get("cell_diameter_vox") is not None
        # A model to start from may be a general one; its card is read later.
        for name, volume in self.volumes.items() if self.start is None else ():
            if general and volume.cell_diameter_um is None:
                raise SettingError(
                    f"volumes.{name}.cell_diameter_um",
                    "missing: expected the typical diameter of the cells in this volume, "
                    "micrometres, as settings.cell_diameter_vox resamples it by that",
                )
            if not general and volume.cell_diameter_um is not None:
                raise SettingError(
                    f"volumes.{name}.cell_diameter_um",
                    "expected none without settings.cell_diameter_vox (a model for cells of any "
                    "size); leave it out, or set that to 8",
                )
