"""How a volume is cut into tiles, and how the tiles become one volume again."""

from typing import Annotated, Literal

from pydantic import Field

from voxmill.config.base import Count, Number, Section, Seed, TripleVox, Whole, section

Tolerance = Annotated[Number, Field(gt=0, lt=1)]
_Halo = Annotated[Whole, Field(ge=0)]
_TOLERANCE = 1e-3


@section("tiles")
class TilesSection(Section):
    """The section `tiles` of a configuration."""

    shape_vox: TripleVox = (256, 256, 256)
    """Largest core of a tile, z, y, x."""
    halo_vox: _Halo | tuple[_Halo, _Halo, _Halo] | Literal["auto", "exact"] = "auto"
    """Surroundings that each core is predicted with: a number, or [z, y, x]. auto measures what the
    network needs on the volume itself; exact is its theoretical receptive field, the sum of its
    dilations."""
    halo_tolerance: Tolerance = _TOLERANCE
    """For halo_vox auto: largest change of a probability that missing surroundings may cause."""
    per_job: Count | Literal["auto"] = "auto"
    """Tiles that one job cuts, or predicts one after another, loading the model once; more than 1
    where tiles take seconds or a cluster limits the number of jobs. auto: one, and for a volume of
    more than 1000 tiles as many as make 1000 jobs of them."""
    keep: Literal["all", "until-predicted", "none"] = "all"
    """How long the cut tiles stay on the disk: all are kept, or removed once every network has
    predicted them, or none is ever written and predictions read the volume itself."""


@section("stitching")
class StitchingSection(Section):
    """The section `stitching` of a configuration."""

    formats: tuple[Literal["ome-zarr", "ome-tiff"], ...] = ("ome-zarr",)
    """Files of the stitched probability. ome-zarr is always written: the predictions are parts of
    it. ome-tiff adds one tiled OME-BigTIFF with a pyramid, compressed without loss."""
    dtype: Literal["uint8", "uint16", "float16", "float32"] = "uint16"
    """Type of the stored probabilities; of an integer the largest value stands for 1. uint8 takes 6
    to 11 times less disk than uint16, but cells at the very threshold may be gained or lost.
    Another type predicts all tiles anew."""
    compression: Literal["zstd", "none"] = "zstd"
    """Of the chunks of the OME-Zarr. Another one predicts all tiles anew."""


@section("halo")
class HaloSettings(Section):
    """How the halo is measured."""

    tolerance: Tolerance = _TOLERANCE
    """Largest change of a probability in the core that missing surroundings may cause."""
    windows: Count = 6
    """How many windows of the volume are tried, the brightest of a sample among them."""
    core_vox: Count = 24
    """Edge length of the core in each window."""
    seed: Seed = 0
    """Of the places."""
