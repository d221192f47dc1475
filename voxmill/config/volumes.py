"""Volumes of a configuration and their ground truth."""

from typing import Annotated, Literal

from pydantic import Field

from voxmill.config.base import (
    FilePath,
    Name,
    OrEmpty,
    Region,
    Section,
    SettingError,
    Text,
    TripleUm,
    Whole,
    section,
)
from voxmill.config.phantoms import PhantomSettings

# Of files that hold points; all others are volumes.
TABLE_SUFFIXES = (".csv", ".tsv", ".txt")
Index = Annotated[Whole, Field(ge=0)]


@section("truth")
class GroundTruthSection(Section):
    """Where the true cells of a volume are."""

    path: FilePath
    """CSV of points (z_vox,y_vox,x_vox or z_um,...), or a volume."""
    kind: Literal["points", "voxels", "labels", "mask"] | None = None
    """What the ground truth is; needed for volumes. voxels: voxels equal to 1 are centroids;
    labels: instance labels; mask: its connected components are cells."""

    def __post_init__(self) -> None:
        if self.kind is None and not self.path.lower().endswith(TABLE_SUFFIXES):
            raise SettingError(
                "kind",
                f"missing: a file such as {self.path} does not tell what it is: expected voxels "
                "(voxels equal to 1 are centroids), labels (one number a cell) or mask (connected "
                "components are cells); a table of points ends with "
                f"{' or '.join(TABLE_SUFFIXES)}",
            )


@section("volumes")
class VolumeSection(Section):
    """One volume: a file, or a phantom."""

    path: FilePath | None = None
    """TIFF, BigTIFF, OME-TIFF, a folder of 2D TIFF planes, NIfTI, NIfTI.gz, OME-Zarr, Zarr, HDF5,
    BigDataViewer (.h5) or Imaris (.ims)."""
    phantom: OrEmpty[PhantomSettings | None] = None
    """A synthetic volume with exact ground truth instead of a file."""
    channel: Index | None = None
    """Which channel to read, where the file has several; from 0."""
    level: Index | None = None
    """Level of a pyramid (OME-Zarr, BigDataViewer, Imaris) to read; 0, the finest, when left
    out."""
    time: Index | None = None
    """Time point to read (OME-Zarr, HDF5), where the file has several; from 0."""
    dataset: Annotated[Text, Field(min_length=1)] | None = None
    """Path of the image inside of a Zarr or HDF5 container that holds several."""
    voxel_size_um: TripleUm | None = None
    """Voxel size z, y, x; wins over the file's header."""
    truth: OrEmpty[GroundTruthSection | None] = None
    """Ground truth for the evaluation; a phantom brings its own."""
    region: Region | None = None
    """Part of the volume to which the evaluation is limited: absolute voxels, half-open,
    "z0:z1, y0:y1, x0:x1"."""
    networks: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    """Names of the networks to run on this volume; all of them when left out."""

    def __post_init__(self) -> None:
        if (self.phantom is None) == (self.path is None):
            found = "neither" if self.path is None else "both"
            raise SettingError(
                "",
                "expected either path (a file) or phantom (a synthetic volume), found "
                f"{found}; give one of the two",
            )
        if self.networks and len(set(self.networks)) < len(self.networks):
            raise SettingError(
                "networks", f"expected each network once, found {list(self.networks)}"
            )
