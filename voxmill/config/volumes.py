"""Volumes of a configuration and their ground truth."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import Field

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
    Section,
    SettingError,
    Text,
    TripleUm,
    Whole,
    section,
)
from voxmill.config.cells import CellsSection
from voxmill.config.phantoms import PhantomSettings

# Of text that holds points; all others are volumes, or files that are not read.
TABLE_SUFFIXES = (".csv", ".tsv", ".txt")
_SHEET = "a workbook, which is not read: save its sheet as CSV"
_ARRAYS = (
    "an array without names for its columns, which is not read: write it as CSV under the names "
    "z_vox,y_vox,x_vox, for example with pandas.DataFrame.to_csv"
)
UNREAD_TABLES = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers"), _SHEET),
    **dict.fromkeys((".npy", ".npz", ".mat", ".pkl", ".pickle"), _ARRAYS),
    **dict.fromkeys(
        (".json", ".yml", ".yaml", ".parquet", ".feather", ".roi", ".zip"),
        "a file of another kind, which is not read: save the points as CSV, with the columns "
        "z_vox,y_vox,x_vox",
    ),
}
"""What to do with files of points that are not read, by suffix."""
MARKERS = (
    "markers of cellfinder or of Fiji's Cell Counter, which number the planes differently: set "
    "`program: cellfinder` or `program: cell_counter` beside the path, or save the points as CSV"
)
Index = Annotated[Whole, Field(ge=0)]
Columns = Annotated[
    tuple[Text | Count, Text | Count, Text | Count],
    Field(json_schema_extra={"expected": "three names or numbers of columns, z, y, x"}),
]


# Keys of a ground truth that only tables of points have.
_OF_TABLES = ("columns", "units", "offset_vox", "program")
Program = Literal["napari", "fiji", "cell_counter", "imaris", "cellfinder", "brainglobe"]
# Added to what a program writes, z, y, x, so that the centre of the first voxel is 0. Of Fiji's
# tables the planes, counted from 1, are known by the name of their column.
_OFFSETS_VOX: dict[str, tuple[float, float, float]] = {
    "napari": (0, 0, 0),
    "fiji": (0, -0.5, -0.5),
    "cell_counter": (-1, 0, 0),
    "imaris": (-0.5, -0.5, -0.5),
    "cellfinder": (0, 0, 0),
    "brainglobe": (0, 0, 0),
}


def table_reading(truth: Mapping[str, Any]) -> dict[str, Any]:
    """What a ground truth of the configuration says about its table of points.

    Returns
    -------
    dict
        Arguments of `voxmill.evaluation.point_columns.TruthReading`; what a program adds of its
        own is part of `offset_vox`.
    """
    reading = {key: truth[key] for key in _OF_TABLES if key in truth}
    program = reading.pop("program", None)
    if program is not None:
        own, given = _OFFSETS_VOX[program], reading.get("offset_vox", (0, 0, 0))
        reading["offset_vox"] = [a + b for a, b in zip(own, given, strict=True)]
    if program == "brainglobe":
        reading.setdefault("units", "vox")
    return reading


@section("truth")
class GroundTruthSection(Section):
    """Where the true cells of a volume are."""

    path: FilePath
    """CSV of points (z_vox,y_vox,x_vox or z_um,...), or a volume."""
    kind: Literal["points", "voxels", "labels", "mask"] | None = None
    """What the ground truth is; needed for volumes. voxels: voxels equal to 1 are centroids;
    labels: instance labels; mask: its connected components are cells."""
    columns: Columns | None = None
    """Of a table of points: the columns of z, y and x by name, or by number from 1 where the table
    has no header. Found by the names when left out."""
    units: Literal["vox", "um"] | None = None
    """Of a table of points: voxels or micrometres, where the names of the columns don't say."""
    offset_vox: tuple[Number, Number, Number] | None = None
    """Of a table of points: added to the points (z, y, x), voxels; of points that were set in a
    crop the crop's first voxel. Without `program`, the centre of the first voxel is 0; -1 where a
    program counts from 1, -0.5 where 0 is the corner of the first voxel."""
    program: Program | None = None
    """Which program wrote the points, so that they are counted as it counts: napari (a points
    layer), fiji (results of Multi-point), cell_counter (Fiji's Cell Counter, XML), imaris (spots),
    cellfinder (XML), brainglobe (x, y, z in voxels)."""

    def __post_init__(self) -> None:
        if self.program is not None and self.kind is None:
            object.__setattr__(self, "kind", "points")
        suffix = PurePath(self.path.lower()).suffix
        if self.kind in (None, "points") and suffix in UNREAD_TABLES:
            raise SettingError("path", f"{self.path} is {UNREAD_TABLES[suffix]}")
        if self.kind is None and suffix == ".xml":
            raise SettingError("kind", f"missing: {self.path} holds {MARKERS}")
        for key in _OF_TABLES:
            if self.kind not in (None, "points") and getattr(self, key) is not None:
                raise SettingError(
                    key, f"only tables of points have it, found kind {self.kind}; leave it out"
                )
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
    """Which channel to read, where the file has several; from 0. In a folder of planes that of the
    number in the names that counts channels (C00, ch1), in rising order."""
    pattern: Text | None = None
    """Which files of a folder are its planes: a glob (`*_C00_*`), or a regular expression whose
    group is the number that counts the planes (`C00.*Z([0-9]+)`). By default all TIFF files, whose
    names must differ in one number."""
    level: Index | None = None
    """Level of a pyramid (OME-Zarr, BigDataViewer, Imaris) to read; 0, the finest, when left
    out."""
    time: Index | None = None
    """Time point to read (OME-Zarr, HDF5), where the file has several; from 0."""
    dataset: Annotated[Text, Field(min_length=1)] | None = None
    """Path of the image inside of a Zarr or HDF5 container that holds several."""
    voxel_size_um: TripleUm | None = None
    """Voxel size z, y, x; wins over the file's header."""
    tissue: FilePath = "auto"
    """Where tissue is. auto: everywhere but in air and black margins, found by the brightness of
    blocks. none: everywhere. Or the path of a mask of the volume, not 0 in tissue, which may be
    coarser than the volume. Grey values are those of the tissue, and tiles without tissue are not
    predicted."""
    truth: OrEmpty[GroundTruthSection | None] = None
    """Ground truth for the evaluation; a phantom brings its own."""
    region: Region | None = None
    """Part of the volume to which the evaluation is limited: absolute voxels, half-open,
    "z0:z1, y0:y1, x0:x1"."""
    box: Region | None = None
    """A pilot: part of the volume to which the whole run is limited, in absolute voxels, half-open,
    "z0:z1, y0:y1, x0:x1". Those tiles of the whole volume that meet it are made, and are kept when
    the box is taken away; the evaluation is limited to it."""
    model_voxel_size: Literal["refuse", "rescale", "ignore"] = "refuse"
    """What to do where the volume's voxel size differs by more than 5 % from the one that a model
    was trained at. rescale: the volume is resampled to the model's on reading, and cells are
    reported in its own voxels. ignore: the model is used as it is, and cells look to it larger or
    smaller than those that it has learnt."""
    cell_diameter_um: Positive | None = None
    """Typical diameter of the cells in this volume. The volume is resampled on reading so that they
    are as large, in voxels, as those that the model has learnt; the model's card says how large
    these are."""
    networks: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    """Names of the networks to run on this volume; all of them when left out."""
    cells: Annotated[dict[str, Any], Checked(CellsSection)] | None = None
    """Settings of the section `cells` that are others for this volume; they win over a network's
    own."""
    max_distance_um: Positive | None = None
    """A found cell farther than this from a true one is no match; wins over `evaluation`."""
    baseline: Flag | None = None
    """Evaluate a difference of Gaussians too; wins over `evaluation`."""

    def __post_init__(self) -> None:
        if (self.phantom is None) == (self.path is None):
            found = "neither" if self.path is None else "both"
            raise SettingError(
                "",
                "expected either path (a file) or phantom (a synthetic volume), found "
                f"{found}; give one of the two",
            )
        if self.cell_diameter_um is not None and self.model_voxel_size == "ignore":
            raise SettingError(
                "cell_diameter_um",
                f"expected none beside model_voxel_size: ignore, found {self.cell_diameter_um:g}; "
                "leave one of the two out",
            )
        if self.networks and len(set(self.networks)) < len(self.networks):
            raise SettingError(
                "networks", f"expected each network once, found {list(self.networks)}"
            )
