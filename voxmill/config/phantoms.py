"""Synthetic volumes, with exact ground truth."""

import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from voxmill.config.base import (
    NotNegative,
    Number,
    Positive,
    Section,
    Seed,
    SettingError,
    Share,
    Whole,
    rounded,
    section,
)

# Beyond these, a phantom takes more memory or time than any machine has.
_MOST_VOXELS, _MOST_THINGS, _MOST_CELL_VOXELS, _MOST_BLUR_VOX = 20_000_000_000, 5e7, 1e8, 1000
_MOST: dict[str, float] = {
    "voxel_size_um": 1e4,
    "size_spread": 2,
    "stubs_per_cell": 1000,
    "signal_photons": 1e9,
    "background_photons": 1e9,
    "offset": 1e9,
    "read_noise": 1e9,
}

Edge = Annotated[Whole, Field(ge=8)]
_VoxelEdge = Annotated[Number, Field(ge=1e-6)]


def check_voxels(shape: Sequence[int], most: int) -> int:
    """Number of voxels of a shape, refused beyond `most`."""
    if (voxels := math.prod(shape)) > most:
        raise SettingError(
            "shape_vox",
            f"expected at most {most:.1e} voxels (a phantom is made in memory), found "
            f"{rounded(voxels)} in {list(shape)!s:.100}. Give a smaller shape",
        )
    return voxels


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

    def __post_init__(self) -> None:
        """Refuse by arithmetic what would fill the memory or never end."""
        voxels = check_voxels(self.shape_vox, _MOST_VOXELS)
        mm3 = voxels * math.prod(self.voxel_size_um) * 1e-9
        per_mm3 = (
            self.density_per_mm3 * (1 + self.stubs_per_cell)
            + self.fibres_per_mm3
            + self.specks_per_mm3
            + self.vessels_per_mm3
        )
        if per_mm3 * mm3 > _MOST_THINGS:
            raise SettingError(
                "density_per_mm3",
                f"expected a phantom of at most {_MOST_THINGS:.0e} cells, stubs, fibres, specks "
                f"and vessels, found {per_mm3 * mm3:.1e} in {mm3:.3g} mm3. Lower the densities, or "
                "shape_vox times voxel_size_um",
            )
        for key, most in _MOST.items():
            found = getattr(self, key)
            if max(found) > most if isinstance(found, tuple) else found > most:
                raise SettingError(key, f"expected at most {most:g} in a phantom, found {found}")
        cell = math.prod(max(1.0, self.cell_diameter_um / edge) for edge in self.voxel_size_um)
        if cell > _MOST_CELL_VOXELS:
            raise SettingError(
                "cell_diameter_um",
                f"expected a cell of at most {_MOST_CELL_VOXELS:.0e} voxels, found {cell:.1e}. "
                "Give a smaller diameter or larger voxels",
            )
        blur = max(um / edge for um, edge in zip(self.blur_um, self.voxel_size_um, strict=True))
        if blur > _MOST_BLUR_VOX:
            raise SettingError(
                "blur_um",
                f"expected a blur of at most {_MOST_BLUR_VOX} voxels, found {blur:.3g}",
            )
