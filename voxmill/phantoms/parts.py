"""The parts of a phantom: cells, fibres, specks, vessels, background and illumination.

Lengths and positions are in micrometres, axis order z, y, x; `extent` is the size of the volume.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from voxmill.config.phantoms import PhantomSettings


def _number(rng: np.random.Generator, per_mm3: float, extent_um: np.ndarray) -> int:
    """Draw a number of things of a density."""
    return int(rng.poisson(per_mm3 * np.prod(np.asarray(extent_um)) * 1e-9))


def _directions(rng: np.random.Generator, number: int) -> np.ndarray:
    """Draw random unit vectors: (number, 3)."""
    vectors = rng.standard_normal((number, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _curve(
    rng: np.random.Generator,
    start: np.ndarray,
    direction: np.ndarray,
    length_um: float,
    step_um: float,
    bend: float,
) -> np.ndarray:
    """Draw points of a smooth random curve: (K, 3)."""
    steps = max(int(length_um / step_um), 2)
    changes = rng.standard_normal((steps, 3)) * bend
    headings = direction + np.cumsum(changes, axis=0)
    headings /= np.linalg.norm(headings, axis=1, keepdims=True)
    return start + np.cumsum(headings, axis=0) * step_um


def vessels(
    rng: np.random.Generator, settings: PhantomSettings, extent: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draw vessels.

    Returns
    -------
    points : (K, 3) float array
        Points along the vessels.
    radii : (K,) float array
        Radius of the vessel at each point.
    """
    paths, path_radii = [np.zeros((0, 3))], [np.zeros(0)]
    for _ in range(_number(rng, settings.vessels_per_mm3, extent)):
        radius = settings.cell_diameter_um * rng.uniform(0.25, 0.9)
        start = rng.uniform(0, extent)
        for sign in (1, -1):
            heading = _directions(rng, 1)[0] * sign
            path = _curve(rng, start, heading, extent.max() / 2, radius / 2, 0.06)
            paths.append(path)
            path_radii.append(np.full(len(path), radius))
    points, radii = np.concatenate(paths), np.concatenate(path_radii)
    near = ((points > -radii[:, None]) & (points < extent + radii[:, None])).all(axis=1)
    return points[near], radii[near]


def place_cells(
    rng: np.random.Generator,
    settings: PhantomSettings,
    extent: np.ndarray,
    vessels: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the positions and sizes of cells.

    No cell has its centre outside the volume: from the visible part of such a cell one could not
    tell on which side of the face its centre lies.

    Returns
    -------
    centres : (N, 3) float array
    radii : (N,) float array
        Mean radius of each cell.
    """
    low, high = np.zeros(3), extent
    wanted = _number(rng, settings.density_per_mm3, extent)
    layers = rng.uniform(0.25, 1.0, 5) ** 1.5
    slope = rng.uniform(-0.2, 0.2, 2)
    vessel_tree = cKDTree(vessels[0]) if len(vessels[0]) else None
    centres, radii = np.zeros((wanted, 3)), np.zeros(wanted)
    placed = 0
    for _ in range(60 * wanted):
        if placed == wanted:
            break
        radius = (
            0.5
            * settings.cell_diameter_um
            * np.exp(settings.size_spread * np.clip(rng.standard_normal(), -2, 2))
        )
        if placed and rng.random() < settings.touching:
            other = rng.integers(placed)
            gap = rng.uniform(0.95, 1.1) * (radii[other] + radius)
            centre = centres[other] + _directions(rng, 1)[0] * gap
        else:
            centre = rng.uniform(low, high)
            tilted = centre[1] + slope @ (centre[[0, 2]] - extent[[0, 2]] / 2)
            layer = int(np.clip(tilted / extent[1] * len(layers), 0, len(layers) - 1))
            if rng.random() > layers[layer]:
                continue
        if (centre < low).any() or (centre > high).any():
            continue
        gaps = np.linalg.norm(centres[:placed] - centre, axis=1)
        if (gaps < 0.9 * (radii[:placed] + radius)).any():
            continue
        if vessel_tree is not None:
            distance, index = vessel_tree.query(centre)
            if distance < vessels[1][index] + 0.8 * radius:
                continue
        centres[placed], radii[placed] = centre, radius
        placed += 1
    return centres[:placed], radii[:placed]


def _window(
    centre_um: np.ndarray, reach_um: float, settings: PhantomSettings
) -> tuple[tuple[slice, ...], Sequence[np.ndarray]] | None:
    """Slices of the voxels within reach of a point and their offsets from it; None if outside."""
    slices, offsets = [], []
    for axis in range(3):
        size = settings.voxel_size_um[axis]
        start = max(int((centre_um[axis] - reach_um) / size), 0)
        stop = min(int((centre_um[axis] + reach_um) / size) + 1, settings.shape_vox[axis])
        if start >= stop:
            return None
        slices.append(slice(start, stop))
        offsets.append(((np.arange(start, stop) + 0.5) * size - centre_um[axis]).astype(np.float32))
    return tuple(slices), np.meshgrid(*offsets, indexing="ij", sparse=True)


def draw_cells(
    light: np.ndarray,
    rng: np.random.Generator,
    settings: PhantomSettings,
    centres: np.ndarray,
    radii: np.ndarray,
) -> np.ndarray:
    """Add tilted ellipsoids with soft rims, nuclei and stubs; a median cell has brightness 1.

    Returns
    -------
    (z, y, x) uint32 array
        Which cell, counted from 1, each voxel's centre lies in; where two overlap, the one whose
        middle is nearer in units of its own radius. Stubs belong to no cell.
    """
    labels = np.zeros(light.shape, np.uint32)
    depth = np.ones(light.shape, np.float32)
    for number, (centre, radius) in enumerate(zip(centres, radii, strict=True), start=1):
        axes = np.exp(rng.normal(0.0, 0.16, 3))
        axes *= radius / np.prod(axes) ** (1 / 3)
        tilt = np.linalg.qr(rng.standard_normal((3, 3)))[0] / axes
        # Clipped: no method could find a cell far dimmer than the background's texture.
        bright = np.exp(settings.brightness_spread * np.clip(rng.standard_normal(), -1.25, 2.0))
        hollow = rng.uniform(0.4, 0.8) if rng.random() < settings.hollow else 0.0
        stubs = rng.poisson(settings.stubs_per_cell)
        directions, lengths = _directions(rng, stubs), rng.uniform(1.5, 4.5, stubs) * radius
        for direction, length in zip(directions, lengths, strict=True):
            path = _curve(rng, centre + direction * radius * 0.8, direction, length, 1.0, 0.1)
            taper = np.linspace(0.9, 0.35, len(path))
            _draw_tube(light, settings, path, 0.3 * radius * taper, bright * taper)
        if (window := _window(centre, axes.max() + 2.0, settings)) is None:
            continue
        slices, (z, y, x) = window
        r = np.sqrt(sum((t[0] * z + t[1] * y + t[2] * x) ** 2 for t in tilt.T))
        profile = _rim(r - 1.0, radius) * (1 - hollow * _rim(r - 0.55, radius))
        np.maximum(light[slices], bright * profile, out=light[slices])
        nearer = r < depth[slices]
        depth[slices][nearer] = r[nearer]
        labels[slices][nearer] = number
    return labels


def _rim(r: np.ndarray, radius_um: float) -> np.ndarray:
    """Return 1 inside and 0 outside, with a soft step about 1 micrometre wide."""
    return np.clip(0.5 - r * radius_um, 0, 1).astype(np.float32)


def _draw_tube(
    light: np.ndarray,
    settings: PhantomSettings,
    path: np.ndarray,
    radii: np.ndarray,
    brights: np.ndarray,
) -> None:
    """Draw spheres along a path; where things overlap, the brighter one is kept."""
    for point, radius, bright in zip(path, radii, brights, strict=True):
        if (window := _window(point, radius + 1.0, settings)) is None:
            continue
        slices, (z, y, x) = window
        r = np.sqrt(z * z + y * y + x * x)
        value = bright * np.clip(radius + 0.5 - r, 0, 1).astype(np.float32)
        np.maximum(light[slices], value, out=light[slices])


def draw_fibres(
    light: np.ndarray, rng: np.random.Generator, settings: PhantomSettings, extent: np.ndarray
) -> None:
    """Add bright fibres with swellings."""
    for _ in range(_number(rng, settings.fibres_per_mm3, extent)):
        length = settings.cell_diameter_um * rng.uniform(5, 13)
        path = _curve(rng, rng.uniform(0, extent), _directions(rng, 1)[0], length, 1.2, 0.12)
        # Axons have such swellings, called varicosities.
        swell = 1 + 0.4 * np.maximum(np.sin(np.arange(len(path)) / rng.uniform(3, 8)), 0)
        radius = settings.cell_diameter_um * rng.uniform(0.075, 0.135)
        bright = np.full(len(path), rng.uniform(0.6, 2.2))
        _draw_tube(light, settings, path, radius * swell, bright)


def draw_specks(
    light: np.ndarray, rng: np.random.Generator, settings: PhantomSettings, extent: np.ndarray
) -> None:
    """Add bright specks much smaller than a cell."""
    for _ in range(_number(rng, settings.specks_per_mm3, extent)):
        radius = settings.cell_diameter_um * rng.uniform(0.08, 0.16)
        centre, bright = rng.uniform(0, extent), rng.uniform(1.0, 5.0)
        _draw_tube(light, settings, centre[None], np.array([radius]), np.array([bright]))


def _smooth_noise(
    rng: np.random.Generator, shape: tuple[int, ...], grid_shape: np.ndarray
) -> np.ndarray:
    """Draw smooth noise of about unit variance: a coarse random grid, interpolated."""
    coarse = rng.standard_normal(grid_shape)
    factors = np.array(shape) / np.array(coarse.shape)
    return ndimage.zoom(coarse, factors, order=1, mode="nearest", grid_mode=True).astype(np.float32)


def background(
    rng: np.random.Generator, settings: PhantomSettings, extent: np.ndarray
) -> np.ndarray:
    """Draw the photons of the background, with a coarse and a finer texture."""
    total = np.ones(settings.shape_vox, np.float32)
    for diameters, share in ((7.0, 0.7), (2.5, 0.3)):
        grid_shape = np.maximum(extent / (diameters * settings.cell_diameter_um), 2).astype(int)
        noise = _smooth_noise(rng, settings.shape_vox, grid_shape)
        total += share * settings.background_variation * noise
    return np.float32(settings.background_photons) * np.maximum(total, 0.1)


def darken_vessels(
    light: np.ndarray, settings: PhantomSettings, vessels: tuple[np.ndarray, np.ndarray]
) -> None:
    """Limit the light inside the vessels to a share of the background."""
    for point, radius in zip(*vessels, strict=True):
        if (window := _window(point, radius + 1.0, settings)) is None:
            continue
        slices, (z, y, x) = window
        r = np.sqrt(z * z + y * y + x * x)
        dark = np.float32(0.3 * settings.background_photons)
        inside = r < radius
        light[slices] = np.where(inside, np.minimum(light[slices], dark), light[slices])


def illumination(rng: np.random.Generator, settings: PhantomSettings) -> np.ndarray:
    """Draw the relative light: loss with depth, shadows along x, flicker from plane to plane."""
    planes, rows, columns = settings.shape_vox
    depth_um = np.arange(planes) * settings.voxel_size_um[0]
    light = np.exp(-depth_um / settings.attenuation_um)
    light = light * (1 + 0.03 * rng.standard_normal(planes))
    shadows = ndimage.gaussian_filter(rng.standard_normal((planes, rows)), (0.8, 2.0))
    shadows = np.clip(shadows / shadows.std() - 0.5, 0, 2) / 2
    # A shadow starts somewhere along x, where the light sheet passes, and fades.
    start = rng.uniform(-0.5, 0.8, (planes // 8 + 1, rows // 16 + 1))
    start = ndimage.zoom(start, (planes / start.shape[0], rows / start.shape[1]), order=1)
    along = np.linspace(0, 1, columns)[None, None, :] - start[:planes, :rows, None]
    fade = np.clip(along * 4, 0, 1) * np.clip(1.6 - along, 0.3, 1)
    stripes = 1 - settings.stripes * shadows[:, :, None] * fade
    return (light[:, None, None] * stripes).astype(np.float32)
