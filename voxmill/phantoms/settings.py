"""What a phantom looks like."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from voxmill.runtime.errors import VoxmillError

_POSITIVE = ("density_per_mm3", "cell_diameter_um", "signal_photons", "attenuation_um")
_FRACTIONS = ("touching", "hollow", "stripes", "background_variation", "brightness_spread")
_NOT_NEGATIVE = (*_FRACTIONS, "size_spread", "stubs_per_cell", "fibres_per_mm3", "specks_per_mm3")
_NOT_NEGATIVE += ("vessels_per_mm3", "background_photons", "read_noise", "offset")


@dataclass(frozen=True)
class PhantomSettings:
    """What a phantom looks like; the same settings give the same phantom.

    Parameters
    ----------
    seed : int
    shape_vox : (3,) tuple of int
        Shape z, y, x.
    voxel_size_um : (3,) tuple of float
        Edge lengths of a voxel z, y, x.
    density_per_mm3 : float
        Mean cell density; layers along y deviate from it.
    cell_diameter_um : float
        Median of the cells' mean diameter.
    size_spread, brightness_spread : float
        Standard deviation of the logarithm of diameter and brightness.
    touching : float
        Share of cells that are placed against an earlier cell.
    hollow : float
        Share of cells with a dark nucleus.
    stubs_per_cell : float
        Mean number of process stubs that leave a cell.
    fibres_per_mm3, specks_per_mm3, vessels_per_mm3 : float
        Density of bright fibres, bright specks (smaller than a cell) and dark vessels.
    signal_photons, background_photons : float
        Photons per voxel of a median cell at the surface, and of the background.
    background_variation : float
        Relative amplitude of the low-frequency background.
    stripes : float
        Largest relative loss of light in a shadow of the light sheet.
    attenuation_um : float
        Depth along z at which 1/e of the light is left.
    blur_um : (3,) tuple of float
        Standard deviation of the Gaussian blur z, y, x.
    offset, read_noise : float
        Grey value of no light, and standard deviation of the camera's noise in grey values.
    """

    seed: int = 0
    shape_vox: tuple[int, int, int] = (96, 256, 256)
    voxel_size_um: tuple[float, float, float] = (2.5, 1.6, 1.6)
    density_per_mm3: float = 22000.0
    cell_diameter_um: float = 12.0
    size_spread: float = 0.18
    brightness_spread: float = 0.4
    touching: float = 0.2
    hollow: float = 0.4
    stubs_per_cell: float = 2.0
    fibres_per_mm3: float = 6500.0
    specks_per_mm3: float = 20000.0
    vessels_per_mm3: float = 200.0
    signal_photons: float = 200.0
    background_photons: float = 100.0
    background_variation: float = 0.6
    stripes: float = 0.35
    attenuation_um: float = 500.0
    blur_um: tuple[float, float, float] = (2.2, 0.9, 0.9)
    offset: float = 100.0
    read_noise: float = 3.0

    def __post_init__(self):
        for key, kind in (("shape_vox", int), ("voxel_size_um", float), ("blur_um", float)):
            object.__setattr__(self, key, _triple(key, getattr(self, key), kind))
        if not _is(self.seed, int) or self.seed < 0:
            raise VoxmillError(f"phantom seed: expected an integer >= 0, found {self.seed!r}")
        for key in (*_POSITIVE, *_NOT_NEGATIVE):
            value = getattr(self, key)
            low, high = (1e-9 if key in _POSITIVE else 0.0), (1.0 if key in _FRACTIONS else np.inf)
            if not _is(value, (int, float)) or not low <= value <= high or not np.isfinite(value):
                expected = "a number > 0" if key in _POSITIVE else "a number >= 0"
                expected = "a number from 0 to 1" if key in _FRACTIONS else expected
                raise VoxmillError(f"phantom {key}: expected {expected}, found {value!r}")


def _is(value, kind) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _triple(key: str, value, kind: type) -> tuple:
    accepted = int if kind is int else (int, float)
    least = 8 if kind is int else (1e-6 if key == "voxel_size_um" else 0.0)
    try:
        value = tuple(value)
        good = len(value) == 3 and all(_is(v, accepted) and least <= v < np.inf for v in value)
    except TypeError:
        good = False
    if not good:
        bound = f">= {least}" if least >= 1 or key == "blur_um" else "> 0"
        raise VoxmillError(
            f"phantom {key}: expected three {'integers' if kind is int else 'numbers'} {bound} "
            f"(z, y, x), found {value!r}"
        )
    return tuple(kind(v) for v in value)


def phantom_settings(settings: dict) -> PhantomSettings:
    """Phantom settings from a plain dict, as a rule's params hold them.

    Raises
    ------
    VoxmillError
        If a key is unknown or a value out of range.
    """
    known = {f.name for f in dataclasses.fields(PhantomSettings)}
    if unknown := sorted(set(settings) - known):
        raise VoxmillError(f"phantom {unknown[0]}: unknown; expected some of {sorted(known)}")
    return PhantomSettings(**settings)
