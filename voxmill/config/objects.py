"""How cells become objects: labels and outlines."""

from typing import Annotated, Literal

from pydantic import Field

from voxmill.config.base import (
    Flag,
    NotNegative,
    Number,
    Positive,
    Section,
    Whole,
    section,
    setting,
)


@section("segment")
class _Objects(Section):
    foreground: Literal["probability", "image"] = "probability"
    """What says which voxels belong to a cell. probability: that of the model, for models that
    learned masks. image: grey values against the darkest and brightest around and, for the
    outlines, against the cell's own plateau and surroundings; for models that learned centroids."""
    threshold: Annotated[Number, Field(gt=0, le=1)] = 0.5
    """Foreground (from 0 to 1) from which a voxel belongs to a cell, in steps of 1/255."""
    largest_radius_um: Positive = 12.0
    """No voxel of a cell is farther than this from its seed, measured along a path in the cell;
    about the diameter of a cell."""
    fade: NotNegative = 0.0
    """How much longer a path counts where the foreground is low: by this factor, times one less
    the foreground."""
    rise_um: NotNegative = 5.0
    """What a path costs that climbs from probability 0 to 1: cells part in the valleys."""
    outlines: Flag = True
    """Smooth the cells: each becomes one piece without handles and holes."""
    force: NotNegative = 0.6
    """Weight of the probability in the flow of the outlines."""
    curvature: NotNegative = 0.3
    """Weight of the curvature in the flow of the outlines; in units of one over the smallest edge
    of a voxel."""
    iterations: Whole = setting(default=200, ge=0, le=10_000)
    """Most sweeps of the flow; it ends as soon as nothing changes."""


@section("segment")
class ObjectSettings(_Objects):
    """How the voxels of each cell are found; see `voxmill.cells.labels`."""


@section("segment")
class SegmentSection(_Objects):
    """The section `segment` of a configuration, in which the model's card may decide."""

    foreground: Literal["model", "probability", "image"] = "model"  # type: ignore[assignment]
    """What says which voxels belong to a cell. probability: that of the model. image: grey values
    against the darkest and brightest around and, for the outlines, against the cell's own plateau
    and surroundings. model: the probability of models that learned masks,
    the image for those that learned centroids."""
    threshold: Annotated[Number, Field(gt=0, le=1)] | Literal["model"] = "model"  # type: ignore[assignment]
    """Foreground (from 0 to 1) from which a voxel belongs to a cell, in steps of 1/255. model: the
    threshold of the detector for a probability, 0.45 for the image."""
    largest_radius_um: Positive | Literal["model"] = "model"  # type: ignore[assignment]
    """No voxel of a cell is farther than this from its seed, measured along a path in the cell.
    model: the diameter of a cell in the model's card."""
    formats: tuple[Literal["ome-zarr", "ome-tiff"], ...] = ("ome-zarr",)
    """Files of the labels. ome-zarr is always written. ome-tiff adds one tiled OME-BigTIFF with a
    pyramid, compressed without loss."""
    tables: tuple[Literal["csv", "parquet"], ...] = ("csv",)
    """Tables of the measured cells. csv is always written. parquet adds one with the same columns,
    for millions of cells."""
