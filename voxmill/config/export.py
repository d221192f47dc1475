"""Files for other programs."""

from typing import Annotated, Literal

from pydantic import Field

from voxmill.config.base import Flag, Region, Section, Text, section, setting

ExportFormat = Literal["napari", "brainglobe", "neuroglancer", "fiji", "rois", "meshes"]


@section("export")
class ExportSection(Section):
    """The section `export` of a configuration."""

    formats: Annotated[tuple[ExportFormat, ...], Field(min_length=1)] = setting(
        factory=lambda: ("napari", "brainglobe", "neuroglancer", "fiji")
    )
    """What `snakemake export` writes of each network's cells, a folder each: a points layer of
    napari, points of BrainGlobe (cellfinder's XML among them), annotations and a state of
    Neuroglancer, points of ImageJ and Fiji. Two more are made of the labels: rois, an outline of
    ImageJ for each cell and plane; meshes, a surface (PLY, micrometres) for each cell."""
    labels: Flag = True
    """For Neuroglancer: show the labels as well, which `snakemake export` makes then."""
    image: Literal["link", "copy"] = "link"
    """For Neuroglancer: how the volume is shown. link: where it is an OME-Zarr. copy: any other is
    written as one beside the cells, with all its voxels."""
    box: Region | None = None
    """For rois and meshes: the part of the volume whose cells are written, "z0:z1, y0:y1, x0:x1" in
    its voxels, half-open. Cells are cut at its faces. By default all of it."""
    url: Annotated[
        Text,
        Field(
            pattern=r"^https?://[^\s/]",
            json_schema_extra={"expected": "an address that starts with http:// or https://"},
        ),
    ] = "http://127.0.0.1:9000"
    """For Neuroglancer: where a server hands out the folder that holds `results`."""
