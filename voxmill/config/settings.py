"""The whole configuration."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from voxmill.config.base import (
    Checked,
    FilePath,
    Name,
    OrEmpty,
    Section,
    SettingError,
    section,
    setting,
)
from voxmill.config.cells import CellsSection
from voxmill.config.denoising import DenoisingSection
from voxmill.config.evaluation import EvaluationSection
from voxmill.config.export import ExportSection
from voxmill.config.objects import SegmentSection
from voxmill.config.prediction import PredictionSettings
from voxmill.config.scans import ScanSection
from voxmill.config.tiles import StitchingSection, TilesSection
from voxmill.config.training import TrainingSection
from voxmill.config.volumes import VolumeSection
from voxmill.runtime.paths import shipped

# Folders of a volume's results beside those of its networks.
_TAKEN = ("tiles", "cut", "batches", "baseline")


def _free(name: str) -> str:
    if name.lower() in _TAKEN:
        raise SettingError("", f"expected another name than {', '.join(_TAKEN)}, found {name!r}")
    return name


NetworkName = Annotated[Name, AfterValidator(_free)]


@section("networks")
class NetworkSection(Section):
    """One trained model of a configuration."""

    weights: Annotated[
        FilePath,
        Field(
            pattern=r"\.(safetensors|pt2)$",
            json_schema_extra={"expected": "a file name that ends with .safetensors or .pt2"},
        ),
        AfterValidator(shipped),
    ]
    """Weights as safetensors, or a program of torch.export (.pt2); the model card (.json) lies
    beside them. A relative path counts from the working folder; `models/phantom.safetensors` and
    the other models that come with voxmill are found from any."""
    cells: Annotated[dict[str, Any], Checked(CellsSection)] | None = None
    """Settings of the section `cells` that are others for this network."""


@section("")
class Settings(Section):
    """Scientific choices of a run. Memory, time, GPUs and threads belong to rules and profiles."""

    volumes: OrEmpty[dict[Name, OrEmpty[VolumeSection]]] = setting(factory=dict)
    """Volumes by name; the name becomes a folder in the results."""
    networks: OrEmpty[dict[NetworkName, OrEmpty[NetworkSection]]] = setting(factory=dict)
    """Trained models by name."""
    training: OrEmpty[dict[Name, OrEmpty[TrainingSection]]] = setting(factory=dict)
    """Networks to train by name, made by `snakemake train`; each becomes models/NAME.safetensors
    with its card beside it."""
    tiles: OrEmpty[TilesSection] = setting(factory=TilesSection)
    """How the volumes are cut into tiles."""
    prediction: OrEmpty[PredictionSettings] = setting(factory=PredictionSettings)
    """How the networks are run."""
    stitching: OrEmpty[StitchingSection] = setting(factory=StitchingSection)
    """How the predicted tiles become one volume."""
    cells: OrEmpty[CellsSection] = setting(factory=CellsSection)
    """How cells are found in the probabilities."""
    segment: OrEmpty[SegmentSection] = setting(factory=SegmentSection)
    """How the voxels of each cell are found, by `snakemake segment`."""
    evaluation: OrEmpty[EvaluationSection] = setting(factory=EvaluationSection)
    """How found cells are compared with the ground truth."""
    export: OrEmpty[ExportSection] = setting(factory=ExportSection)
    """Files for other programs, written by `snakemake export`."""
    scans: OrEmpty[dict[Name, OrEmpty[ScanSection]]] = setting(factory=dict)
    """MRI scans to denoise by name (`snakemake denoise`); each is a file, a synthetic scan or a
    BIDS folder of T1-weighted scans."""
    denoising: OrEmpty[DenoisingSection] = setting(factory=DenoisingSection)
    """How scans are denoised by a Deep Image Prior; docs/denoising.md explains the method."""

    def __post_init__(self) -> None:
        if not (self.volumes or self.scans or self.training):
            raise SettingError(
                "",
                "nothing to do: expected volumes (with networks) to predict, scans to denoise, or "
                "networks under training",
            )
        if self.volumes and not self.networks:
            raise SettingError("networks", "expected at least one network for the volumes")
        self._check_folders()
        for name, volume in self.volumes.items():
            for network in volume.networks or ():
                if network not in self.networks:
                    raise SettingError(
                        f"volumes.{name}.networks",
                        f"expected some of {sorted(self.networks)}, found {network!r}",
                    )

    def _check_folders(self) -> None:
        """Refuse names of which two become one folder of results."""
        first = {"results/training": "training"} if self.training else {}
        for kind, names, folder in (
            ("volumes", self.volumes, "results/"),
            ("scans", self.scans, "results/"),
            ("networks", self.networks, "results/VOLUME/"),
        ):
            for name in names:
                key = f"{kind}.{name}"
                if (other := first.setdefault(folder + name.lower(), key)) != key:
                    raise SettingError(
                        key,
                        f"expected a name of its own, found that of {other}: both would write to "
                        f"one folder, {folder}{name} (some file systems do not tell capitals "
                        "apart). Rename one",
                    )


def check(content: Mapping[str, Any], source: str = "config") -> dict[str, Any]:
    """A configuration as a plain nested dict with all defaults, checked.

    Parameters
    ----------
    content : dict
        As YAML holds it.
    source : str
        What errors call it.

    Raises
    ------
    SettingError
        Names the dotted key, what was expected, what was found and what to do.
    """
    return Settings.from_dict(content, source=source).plain()
