"""Synthetic volumes, with exact ground truth."""

from typing import Annotated

from pydantic import Field

from voxmill.config.base import (
    NotNegative,
    Number,
    Positive,
    Section,
    Seed,
    Share,
    Whole,
    section,
)

Edge = Annotated[Whole, Field(ge=8)]
_VoxelEdge = Annotated[Number, Field(ge=1e-6)]


@section("phantom")
class PhantomSettings(Section):
    """What a phantom of a cleared brain looks like; the same settings give the same phantom."""

    seed: Seed = 0
    """Of everything random in it."""
    shape_vox: tuple[Edge, Edge, Edge] = (96, 256, 256)
    """Shape z, y, x."""
    voxel_size_um: tuple[_VoxelEdge, _VoxelEdge, _VoxelEdge] = (2.5, 1.6, 1.6)
    """Edge lengths of a voxel z, y, x."""
    density_per_mm3: Positive = 22000.0
    """Mean cell density; layers along y deviate from it."""
    cell_diameter_um: Positive = 12.0
    """Median of the cells' mean diameter."""
    size_spread: NotNegative = 0.18
    """Standard deviation of the logarithm of the diameter."""
    brightness_spread: Share = 0.4
    """Standard deviation of the logarithm of the brightness."""
    touching: Share = 0.2
    """Share of cells that are placed against an earlier cell."""
    hollow: Share = 0.4
    """Share of cells with a dark nucleus."""
    stubs_per_cell: NotNegative = 2.0
    """Mean number of process stubs that leave a cell."""
    fibres_per_mm3: NotNegative = 6500.0
    """Density of bright fibres."""
    specks_per_mm3: NotNegative = 20000.0
    """Density of bright specks, smaller than a cell."""
    vessels_per_mm3: NotNegative = 200.0
    """Density of dark vessels."""
    signal_photons: Positive = 200.0
    """Photons per voxel of a median cell at the surface."""
    background_photons: NotNegative = 100.0
    """Photons per voxel of the background."""
    background_variation: Share = 0.6
    """Relative amplitude of the low-frequency background."""
    stripes: Share = 0.35
    """Largest relative loss of light in a shadow of the light sheet."""
    attenuation_um: Positive = 500.0
    """Depth along z at which 1/e of the light is left."""
    blur_um: tuple[NotNegative, NotNegative, NotNegative] = (2.2, 0.9, 0.9)
    """Standard deviation of the Gaussian blur z, y, x."""
    offset: NotNegative = 100.0
    """Grey value of no light."""
    read_noise: NotNegative = 3.0
    """Standard deviation of the camera's noise, grey values."""
